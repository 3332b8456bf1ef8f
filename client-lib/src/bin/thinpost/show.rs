//! Messages and figures, as people and programs read them.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};
use thinpost_client::{
    AccountKey, AppId, Event, LinkState, Matter, Notice, Received, ReceivedContent, Status, Subscription,
    SyncEnd, SyncReport,
};
use tokio::time::timeout;

/// A message as one object; the fields are described in `docs/rpc.md`.
pub(crate) fn received(message: &Received) -> Value {
    let mut value = json!({
        "n": message.number,
        "from": message.contact,
        "account": message.from.as_ref().map(account),
        "id": message.app_id.as_ref().map(AppId::to_string),
        "sealed": message.sealed,
        "key": message.sealed_by.map(|key| HEXLOWER.encode(&key)),
        "age_s": message.age_s,
        "received_at": rfc3339(message.received_unix_ms),
    });
    let (kind, content) = match &message.content {
        ReceivedContent::Text(text) => ("text", text.clone()),
        ReceivedContent::Data(data) => ("data", BASE64.encode(data)),
        ReceivedContent::Unreadable(bytes) => ("unreadable", BASE64.encode(bytes)),
        _ => ("unreadable", String::new()),
    };
    value[kind] = content.into();
    value
}

/// A message as a line, or a few, for people.
pub(crate) fn received_line(message: &Received) -> String {
    let from = match (&message.contact, &message.from) {
        (Some(name), _) => name.clone(),
        (None, Some(account)) => account.to_string(),
        // Their key's beginning tells two of them apart.
        (None, None) => match &message.sealed_by {
            Some(key) => format!("(stranger {})", HEXLOWER.encode(&key[..4])),
            None => "(unnamed)".to_owned(),
        },
    };
    format!("{from}: {}", content(&message.content))
}

/// What a message says, for people.
pub(crate) fn content(content: &ReceivedContent) -> String {
    match content {
        ReceivedContent::Text(text) => harmless(text),
        ReceivedContent::Data(data) => format!("[{} bytes of data]", data.len()),
        ReceivedContent::Unreadable(bytes) => {
            format!("[{} bytes that this version cannot read]", bytes.len())
        }
        _ => "[a message of another kind]".to_owned(),
    }
}

/// Text from strangers must not steer a terminal, nor look like another message's line.
fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown.push_str("\n    "),
            '\t' => shown.push('\t'),
            // They turn the direction of what follows, and so its meaning.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => shown.push(char::REPLACEMENT_CHARACTER),
            c if c.is_control() => shown.push(char::REPLACEMENT_CHARACTER),
            c => shown.push(c),
        }
    }
    shown
}

const RESTORED: &str = "this home was restored from an old copy: contacts are asked within minutes online, and what they still have comes again";

fn asked_again(contact: &str) -> String {
    format!("{contact} has lost keys or messages: what was not confirmed is sent again")
}

fn keys_changed(contact: &str) -> String {
    format!("{contact} has other keys: compare safety numbers")
}

/// All that is told and was not shown yet.
pub(crate) async fn rest_of_news(events: &mut Subscription) {
    while let Ok(Some(event)) = timeout(Duration::ZERO, events.next()).await {
        news(&event);
    }
}

/// What a person should know of, on standard error: standard output is for programs, too.
pub(crate) fn news(event: &Event) {
    let line = match event {
        Event::Restored => RESTORED.to_owned(),
        Event::AskedAgain { contact } => asked_again(contact),
        Event::KeysChanged { contact } => keys_changed(contact),
        Event::Abandoned { message, contact, reason, .. } => {
            let to = contact.as_deref().unwrap_or("somebody who is no contact any more");
            format!("message {message} to {to} has perhaps not arrived: {reason}")
        }
        Event::Failed { message, reason, .. } => format!("message {message} was not delivered: {reason}"),
        Event::NotesFailed { contact, reason } => {
            let to = contact.as_deref().unwrap_or("somebody who is no contact any more");
            format!("who you are, or what has arrived, could not be told to {to}: {reason}")
        }
        Event::ContactAdded { contact } => format!("{contact} has come, and is a contact now"),
        Event::Introduced { account: of } => {
            format!("a stranger has told who they are: thinpost contact accept {} NAME", account(of))
        }
        Event::Unopened => "an envelope that no key opens was dropped".to_owned(),
        Event::RevocationsFull => {
            "the relay remembers no more revoked tickets: thinpost ticket renew --all".to_owned()
        }
        _ => return,
    };
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// What a person should know of and has not acknowledged, in one line.
pub(crate) fn notice_line(notice: &Notice) -> String {
    // The others go with their contact.
    let contact = notice.contact.as_deref().unwrap_or("somebody who is no contact any more");
    let (what, times) = match notice.matter {
        Matter::Restored => (RESTORED.to_owned(), notice.count),
        Matter::AskedAgain(_) => (asked_again(contact), notice.count),
        Matter::KeysChanged(_) => (keys_changed(contact), notice.count),
        Matter::Abandoned(_) => {
            let (count, have) = (notice.count, if notice.count == 1 { "has" } else { "have" });
            (format!("{} to {contact} {have} perhaps not arrived", messages(count)), 1)
        }
        _ => (format!("{:?}", notice.matter), notice.count),
    };
    let times = if times > 1 { format!(" ({times} times)") } else { String::new() };
    format!("{}  {what}{times}", rfc3339(notice.last_unix_ms))
}

fn notice(notice: &Notice) -> Value {
    let kind = match notice.matter {
        Matter::Restored => "restored",
        Matter::AskedAgain(_) => "asked-again",
        Matter::KeysChanged(_) => "keys-changed",
        Matter::Abandoned(_) => "abandoned",
        _ => "other",
    };
    json!({
        "n": notice.number,
        "kind": kind,
        "contact": notice.contact,
        "count": notice.count,
        "at": rfc3339(notice.last_unix_ms),
    })
}

pub(crate) fn messages(count: u64) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{count} messages") }
}

pub(crate) fn account(account: &AccountKey) -> String {
    HEXLOWER.encode(&account.0)
}

pub(crate) fn link(state: &LinkState) -> Value {
    let mut value = json!({ "state": state.name() });
    if let Some(detail) = state.detail() {
        value["detail"] = detail.into();
    }
    if let LinkState::Waiting { retry_in, .. } = state {
        value["retry_in_s"] = retry_in.as_secs_f64().into();
    }
    value
}

pub(crate) fn status(status: &Status) -> Value {
    json!({
        "waiting": status.waiting,
        "custody": status.custody,
        "unconfirmed": status.unconfirmed,
        "failed": status.failed,
        "abandoned": status.abandoned,
        "received": status.received,
        "notices": status.notices.iter().map(notice).collect::<Vec<_>>(),
        "link": link(&status.link.state),
        "rtt_ms": status.link.rtt.map(|rtt| rtt.as_millis() as u64),
        "sent_bytes": status.link.sent_bytes,
        "received_bytes": status.link.received_bytes,
    })
}

pub(crate) fn sync_report(report: &SyncReport) -> Value {
    let (end, link) = match &report.end {
        SyncEnd::Complete => ("complete", None),
        SyncEnd::OutOfTime => ("out-of-time", None),
        SyncEnd::OutOfBytes => ("out-of-bytes", None),
        SyncEnd::NoLink(state) => ("no-link", Some(link(state))),
        _ => ("other", None),
    };
    json!({
        "end": end,
        "link": link,
        "custody": report.custody,
        "failed": report.failed,
        "received": report.received,
        "waiting": report.waiting,
        "delayed": report.delayed.map(|reason| reason.to_string()),
        "bytes": report.bytes,
    })
}

fn rfc3339(unix_ms: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms)).unwrap_or(UNIX_EPOCH);
    // The last year that the format knows is 9999.
    let time = time.min(UNIX_EPOCH + Duration::from_secs(253_402_300_799));
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use thinpost_client::InboxNumber;

    use super::*;

    fn message(content: ReceivedContent) -> Received {
        Received {
            number: InboxNumber(5),
            from: Some(AccountKey([0xaa; 32])),
            sealed: true,
            sealed_by: Some([0xbb; 32]),
            contact: Some("bob".into()),
            app_id: Some(AppId([1; 16])),
            content,
            age_s: 3,
            received_unix_ms: 1_767_225_600_123,
        }
    }

    #[test]
    fn a_message_is_one_object() {
        let text = received(&message(ReceivedContent::Text("hi".into())));
        assert_eq!(
            text,
            json!({
                "n": 5, "from": "bob", "account": "aa".repeat(32), "id": "01".repeat(16), "sealed": true,
                "key": "bb".repeat(32), "age_s": 3,
                "received_at": "2026-01-01T00:00:00.123Z", "text": "hi",
            })
        );
        assert_eq!(received(&message(ReceivedContent::Data(vec![0, 255])))["data"], "AP8=");
    }

    #[test]
    fn a_strangers_text_cannot_steer_the_terminal_or_pose_as_another_message() {
        let mut message = message(ReceivedContent::Text("a\u{1b}[2J\nmallory: b".into()));
        assert_eq!(received_line(&message), "bob: a\u{fffd}[2J\n    mallory: b");
        message.contact = None;
        assert!(received_line(&message).starts_with("aaaaaaaaaaaaaaaa: "));
        message.from = None;
        assert!(received_line(&message).starts_with("(stranger bbbbbbbb): "));
    }

    #[test]
    fn a_notice_is_one_line_and_one_object() {
        let bob = AccountKey([2; 32]);
        let of = |matter, count| Notice {
            number: 7,
            matter,
            contact: matter.account().map(|_| "bob".to_owned()),
            count,
            last_unix_ms: 1_767_225_600_123,
        };
        let line =
            |matter, count| notice_line(&of(matter, count)).split_off("2026-01-01T00:00:00.123Z  ".len());
        assert_eq!(line(Matter::Restored, 1), RESTORED);
        assert_eq!(line(Matter::KeysChanged(bob), 2), "bob has other keys: compare safety numbers (2 times)");
        assert_eq!(line(Matter::Abandoned(bob), 1), "1 message to bob has perhaps not arrived");
        assert_eq!(line(Matter::Abandoned(bob), 3), "3 messages to bob have perhaps not arrived");
        let told = notice(&of(Matter::AskedAgain(bob), 2));
        let at = "2026-01-01T00:00:00.123Z";
        assert_eq!(told, json!({ "n": 7, "kind": "asked-again", "contact": "bob", "count": 2, "at": at }));
    }

    #[test]
    fn times_beyond_the_calendar_are_shown_as_its_end() {
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.000Z");
    }
}
