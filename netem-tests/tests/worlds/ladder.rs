//! The ladder's promises, on some of its rungs.

use thinpost_netem::ladder::{Day, day, kept_down_to, rungs};

#[test]
fn all_promises_are_kept_on_gprs_and_worse_links_lose_time_but_no_message() {
    let days: Vec<Day> = rungs()
        .unwrap()
        .iter()
        .filter(|link| ["gprs", "gprs-bad", "terrible", "1 kbit/s, 80 %"].contains(&link.name.as_str()))
        .map(|link| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.unwrap().block_on(day(link, 0))
        })
        .collect();
    let kept = kept_down_to(&days);
    assert!(kept.iter().all(|(_, last)| last.is_some()), "{kept:?}");
    assert_eq!(kept[0].1, Some("1 kbit/s, 80 %"), "everything arrives: {:?}", days[3].wrong);
    assert!(kept[1..].iter().all(|(_, last)| *last != Some("1 kbit/s, 80 %")), "{kept:?}");
    assert!(days.iter().all(|day| day.custody.len() == thinpost_netem::ladder::MESSAGES));
}
