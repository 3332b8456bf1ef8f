//! Tickets as QR codes, drawn with half blocks.

use std::fmt::Write as _;

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use thinpost_wire::ticket::Ticket;

/// White on black, whatever the terminal's own colours are: scanners want dark modules on light.
const COLOURS: &str = "\x1b[97;40m";
const COLOURS_OFF: &str = "\x1b[0m";

/// The ticket's QR code with its quiet zone, a line for every two rows of modules; `None` if the ticket
/// is longer than any code holds. With `colours`, it asks the terminal for white on black.
pub(crate) fn draw(ticket: &Ticket, colours: bool) -> Option<String> {
    // A screen is not scratched, so the smallest code is the easiest to scan.
    let code = QrCode::with_error_correction_level(ticket.to_qr_text(), EcLevel::L).ok()?;
    // Blocks are drawn in the light colour: light modules are those that are set.
    let image = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .quiet_zone(true)
        .build();
    if !colours {
        return Some(image + "\n");
    }
    Some(image.lines().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{COLOURS}{line}{COLOURS_OFF}");
        text
    }))
}

#[cfg(test)]
mod tests {
    use thinpost_wire::ids::RelayKey;
    use thinpost_wire::ticket::RelayTicket;

    use super::*;

    fn ticket() -> Ticket {
        let addresses = vec!["192.0.2.7:4433".parse().unwrap()];
        Ticket::Relay(RelayTicket { key: RelayKey([0x5a; 32]), addresses })
    }

    /// The modules as drawn: true where it is dark.
    fn modules(image: &str) -> Vec<Vec<bool>> {
        let halves = |c| match c {
            ' ' => [true, true],
            '\u{2580}' => [false, true],
            '\u{2584}' => [true, false],
            '\u{2588}' => [false, false],
            other => panic!("{other:?} is no half block"),
        };
        let rows = |line: &str| [0, 1].map(|half| line.chars().map(|c| halves(c)[half]).collect());
        image.lines().flat_map(rows).collect()
    }

    #[test]
    fn the_drawing_is_the_code_of_the_ticket_in_a_light_frame() {
        let code = QrCode::with_error_correction_level(ticket().to_qr_text(), EcLevel::L).unwrap();
        let drawn = modules(&draw(&ticket(), false).unwrap());
        let (width, quiet) = (code.width(), 4);
        for y in 0..width + 2 * quiet {
            for x in 0..width + 2 * quiet {
                let inside = (quiet..width + quiet).contains(&x) && (quiet..width + quiet).contains(&y);
                let dark = inside && code[(x - quiet, y - quiet)] == qrcode::Color::Dark;
                assert_eq!(drawn[y][x], dark, "module {x}, {y}");
            }
        }
    }

    #[test]
    fn upper_case_keeps_the_code_of_a_relays_ticket_small() {
        let lines = draw(&ticket(), false).unwrap().lines().count();
        assert!(lines <= 23, "{lines} lines do not fit a terminal of 24");
    }

    #[test]
    fn colours_are_set_and_ended_on_every_line() {
        let image = draw(&ticket(), true).unwrap();
        assert!(image.lines().all(|line| line.starts_with(COLOURS) && line.ends_with(COLOURS_OFF)));
    }
}
