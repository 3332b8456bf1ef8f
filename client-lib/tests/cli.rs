//! Every error is one clear line on standard error, with an exit code that scripts can rely on.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::json;
use thinpost_client::ticket::{ContactTicket, InviteTicket, InviteToken, RelayTicket, Ticket};
use thinpost_client::{Client, Home, MemoryStorage, Models, RelayKey};
use thinpost_wire::text::Parts;

/// Nobody is there: a network for documentation.
fn relay() -> RelayTicket {
    RelayTicket { key: RelayKey([5; 32]), addresses: vec!["192.0.2.1:4433".parse().unwrap()] }
}

/// Somebody else at that relay.
fn person(n: u8, relay: RelayTicket) -> ContactTicket {
    Home::create_seeded(MemoryStorage::new(), &Ticket::Relay(relay), n.into()).unwrap()
}

fn contact(n: u8, relay: RelayTicket) -> String {
    person(n, relay).to_string()
}

fn thinpost(home: &Path, args: &[&str]) -> Output {
    run(home, args, "")
}

fn command(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thinpost"));
    command.arg("--home").arg(home).args(args);
    command.env_remove("THINPOST_LOG").env_remove("THINPOST_PASSPHRASE_FILE");
    command
}

fn run(home: &Path, args: &[&str], input: impl AsRef<[u8]>) -> Output {
    let mut child = command(home, args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end without reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_ref());
    child.wait_with_output().unwrap()
}

/// A home with the contact `bob`, where the relay cannot be reached.
fn home(folder: &Path) -> std::path::PathBuf {
    let home = folder.join("home");
    Home::create(&home, &relay().to_string().parse().unwrap()).unwrap();
    let added = thinpost(&home, &["contact", "add", "bob", &contact(1, relay())]);
    assert!(added.status.success(), "{added:?}");
    home
}

#[track_caller]
fn fails(output: &Output, code: i32, says: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("thinpost: ") && stderr.contains(says), "{stderr}");
}

#[test]
fn a_command_without_a_home_says_how_to_make_one() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    for args in [&["status"][..], &["ticket"], &["listen"], &["send", "bob", "hi"], &["sync"]] {
        fails(&thinpost(&nowhere, args), 66, "thinpost init INVITE");
    }
    assert!(!nowhere.exists());
}

#[test]
fn tickets_that_cannot_be_used_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let fresh = folder.path().join("fresh");
    let ticket = relay().to_string();
    fails(&thinpost(&fresh, &["init", &ticket[..ticket.len() - 3]]), 65, "incomplete or mistyped");
    fails(&thinpost(&fresh, &["init", "hello"]), 65, "no Thinpost ticket");
    fails(&thinpost(&fresh, &["init", &contact(1, relay())]), 65, "needs a relay's ticket or an invite");
    assert!(!fresh.exists(), "a refused ticket leaves nothing behind");

    let home = home(folder.path());
    fails(&thinpost(&home, &["contact", "add", "carol", &ticket]), 65, "a contact's ticket is needed here");
}

#[test]
fn a_ticket_wants_its_kind_and_says_which() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path());
    let token = InviteToken { id: [1; 8], uses: 1, expires_unix_s: 0, mac: [2; 16] };
    let invite = InviteTicket { relay: relay(), token }.to_string();
    fails(&thinpost(&home, &["contact", "add", "carol", &invite]), 65, "this is an invite");
}

#[test]
fn a_home_is_made_offline_and_only_once() {
    let folder = tempfile::tempdir().unwrap();
    let fresh = folder.path().join("fresh");
    let made = thinpost(&fresh, &["init", &relay().to_string(), "--for", "0s"]);
    assert!(made.status.success(), "{made:?}");
    assert!(String::from_utf8_lossy(&made.stdout).contains("was not reached"), "{made:?}");
    fails(&thinpost(&fresh, &["init", &relay().to_string()]), 73, "there is a home at");
}

#[test]
fn a_ticket_is_printed_with_and_without_a_qr_code_and_leads_to_the_account() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path());
    let plain = String::from_utf8(thinpost(&home, &["ticket", "--no-qr"]).stdout).unwrap();
    let ticket: ContactTicket = plain.trim().parse().unwrap();
    assert_eq!(ticket.relays, [relay()]);
    let to_a_script = String::from_utf8(thinpost(&home, &["ticket"]).stdout).unwrap();
    assert_eq!(to_a_script, plain);
    let with_code = String::from_utf8(thinpost(&home, &["ticket", "--qr"]).stdout).unwrap();
    assert!(with_code.starts_with(&plain) && with_code.lines().count() > 20, "{with_code}");
}

#[test]
fn a_ticket_is_made_for_one_person_and_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path());
    let ticket = |args: &[&str]| -> ContactTicket {
        String::from_utf8(thinpost(&home, args).stdout).unwrap().trim().parse().unwrap()
    };
    let [anybodys, anns, carols] =
        [&["ticket"][..], &["ticket", "--for", "ann"], &["ticket", "--for", "carol"]].map(ticket);
    assert_eq!(ContactTicket { token: anns.token, ..anybodys.clone() }, anns);
    assert!(anybodys.token != anns.token && anns.token != carols.token);
    assert_eq!(ticket(&["ticket", "--for", "ann"]), anns);
    let list = |home: &Path| String::from_utf8(thinpost(home, &["ticket", "list"]).stdout).unwrap();
    assert_eq!(list(&home), "ann\ncarol\n");
    assert!(thinpost(&home, &["ticket", "revoke", "ann"]).status.success());
    assert_eq!(list(&home), "carol\n");
    fails(&thinpost(&home, &["ticket", "revoke", "ann"]), 66, "no ticket for \"ann\"");
    fails(&thinpost(&home, &["ticket", "--for", "a\nb"]), 64, "a name has");
    fails(&thinpost(&home, &["ticket", "--for", "ann", "list"]), 64, "cannot be used with");
    let renewed = ticket(&["ticket", "renew"]);
    assert!(renewed.token != anybodys.token && ticket(&["ticket"]) == renewed);
    assert_eq!(ticket(&["ticket", "--for", "carol"]), carols);
    let voided = ticket(&["ticket", "renew", "--all"]);
    assert_eq!((ticket(&["ticket"]), list(&home)), (voided, String::new()));
    assert_ne!(ticket(&["ticket", "--for", "carol"]).token, carols.token);
}

#[test]
fn a_revocation_says_what_it_did_and_what_is_left_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path());
    let lines = |args: &[&str]| -> Vec<String> {
        let output = thinpost(&home, args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    };
    lines(&["ticket", "--for", "robert"]);
    let renew = "with your ticket for anybody they can still knock: `thinpost ticket renew` takes it back";
    let before_a_word = [
        "bob had no ticket of their own, and is given none when they write",
        "nobody is known to have these tickets, which still hold: robert",
        renew,
    ];
    assert_eq!(lines(&["ticket", "revoke", "bob"]), before_a_word);
    let of_nobody = lines(&["ticket", "revoke", "robert"]);
    assert!(of_nobody[0].starts_with("the ticket for robert is revoked"), "{of_nobody:?}");
    assert!(of_nobody[1].contains("a contact under another name, revoke that, too"), "{of_nobody:?}");
    assert_eq!(of_nobody[2..], [renew]);
    lines(&["ticket", "--for", "bob"]);
    let of_a_contact = lines(&["ticket", "revoke", "bob"]);
    assert!(of_a_contact[0].starts_with("what was given to bob is revoked"), "{of_a_contact:?}");
    assert_eq!(of_a_contact[1..], [renew]);
    fails(&thinpost(&home, &["ticket", "revoke", "eve"]), 66, "no ticket for \"eve\", and no contact");
}

#[test]
fn a_guest_is_not_given_a_contacts_name() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path());
    let token = InviteToken { id: [1; 8], uses: 1, expires_unix_s: 0, mac: [2; 16] };
    let invite = InviteTicket { relay: relay(), token }.to_string();
    let guest = |name: &str| thinpost(&home, &["ticket", "guest", name, "--as", "ann", "--invite", &invite]);
    fails(&guest("bob"), 73, "\"bob\" is a contact");
    let [one, same] = [guest("carol"), guest("carol")];
    assert!(one.status.success() && one.stdout == same.stdout, "{one:?} {same:?}");
    let params = json!({ "name": "bob", "invite": invite, "own_name": "ann" });
    let request =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "ticket.guest", "params": params }).to_string();
    assert_eq!(rpc(&home, &[&request])[0]["error"]["data"]["kind"], "contact-exists");
}

#[test]
fn contacts_are_listed_and_their_names_and_accounts_are_unique() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path());
    fails(&thinpost(&home, &["contact", "add", "bob", &contact(2, relay())]), 73, "is named \"bob\" already");
    fails(&thinpost(&home, &["contact", "add", "rob", &contact(1, relay())]), 73, "known as \"bob\" already");
    fails(&thinpost(&home, &["contact", "add", "", &contact(2, relay())]), 64, "a contact's name has");
    let other = RelayTicket { key: RelayKey([6; 32]), ..relay() };
    fails(&thinpost(&home, &["contact", "add", "eve", &contact(2, other)]), 65, "another relay");
    let mut changed = person(2, relay());
    changed.seal.pre_key = [7; 32];
    let changed = changed.to_string();
    fails(&thinpost(&home, &["contact", "add", "eve", &changed]), 65, "not those of its account");
    let listed = String::from_utf8(thinpost(&home, &["contact", "list"]).stdout).unwrap();
    assert_eq!(listed, format!("bob\t{}\n", person(1, relay()).account));
    assert!(thinpost(&home, &["contact", "remove", "bob"]).status.success());
    fails(&thinpost(&home, &["contact", "remove", "bob"]), 66, "no contact named \"bob\"");
}

#[test]
fn a_safety_number_is_compared_and_another_one_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path());
    let printed = thinpost(&home, &["contact", "verify", "bob"]);
    let number = String::from_utf8(printed.stdout).unwrap().trim().to_owned();
    assert_eq!(number.split(' ').count(), 12, "{number}");
    for same in [number.clone(), number.replace(' ', "")] {
        let verified = thinpost(&home, &["contact", "verify", "bob", &same]);
        assert!(verified.status.success(), "{verified:?}");
    }
    let mut another = number.into_bytes();
    another[0] = if another[0] == b'1' { b'2' } else { b'1' };
    let another = String::from_utf8(another).unwrap();
    fails(&thinpost(&home, &["contact", "verify", "bob", &another]), 65, "another number");
    assert_eq!(thinpost(&home, &["contact", "verify", "bob", "12345"]).status.code(), Some(64));
    fails(&thinpost(&home, &["contact", "verify", "eve", &another]), 66, "eve");
}

#[test]
fn messages_that_cannot_be_sent_are_refused_before_they_are_queued() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path());
    fails(&thinpost(&home, &["send", "carol", "hi"]), 66, "no contact named \"carol\"");
    fails(&run(&home, &["send", "bob"], "x".repeat(65_600)), 65, "65600 bytes; at most");
    fails(&thinpost(&home, &["send", "bob", "hi", "--id", "xyz"]), 64, "32 hex digits");
    fails(&thinpost(&home, &["send", "bob", "hi", "--lines", "f"]), 64, "cannot be used with");
    fails(&thinpost(&home, &["send", "bob", "--lines", "/no/such/file"]), 66, "/no/such/file");
    fails(&run(&home, &["send", "bob", "--lines", "-"], "\n\n"), 65, "nothing to send");
    fails(&thinpost(&home, &["send", "bob", ""]), 64, "an empty text is no message");
    fails(&run(&home, &["send", "bob"], "\n"), 64, "an empty text is no message");
    let empty = r#"{"jsonrpc":"2.0","id":1,"method":"send","params":{"to":"bob","text":""}}"#;
    assert_eq!(rpc(&home, &[empty])[0]["error"]["data"]["kind"], "empty");
    let status = String::from_utf8(thinpost(&home, &["status"]).stdout).unwrap();
    assert!(status.contains("waiting      0"), "{status}");
}

#[test]
fn spaces_are_a_message() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path());
    assert!(thinpost(&home, &["send", "bob", " ", "--offline"]).status.success());
}

#[test]
fn a_file_that_is_no_text_is_named_with_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path());
    let file = folder.path().join("latin1.txt");
    std::fs::write(&file, b"gr\xfc\xdfe\n").unwrap();
    let name = file.to_str().unwrap();
    let place = format!("{name}: no UTF-8 at byte 2");
    fails(&thinpost(&home, &["send", "bob", "--lines", name]), 65, &place);
    fails(&thinpost(&home, &["--passphrase-file", name, "status"]), 65, &place);
    fails(&thinpost(&home, &["key", "set", "--new-passphrase-file", name]), 65, &place);
    for args in [&["send", "bob"][..], &["send", "bob", "--lines", "-"]] {
        fails(&run(&home, args, b"fine so far\n\xff"), 65, "standard input: no UTF-8 at byte 12");
    }
    // What is cut off in the middle of a character is too long, and no less text for that.
    let long = format!("x{}", "я".repeat(1 << 19));
    fails(&run(&home, &["send", "bob"], &long), 65, "bytes; at most");
    fails(&thinpost(&home, &["send", "bob", "--lines", folder.path().to_str().unwrap()]), 74, "directory");
}

#[test]
fn what_the_relay_does_not_take_in_time_stays_queued() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path());
    fails(&thinpost(&home, &["send", "bob", "hi", "--for", "0s"]), 75, "queued, 1 message waiting");
    let queued = run(&home, &["send", "bob", "--lines", "-", "--offline"], "one\n\ntwo\n");
    assert_eq!(queued.stdout, b"2 messages queued\n");
    let status: serde_json::Value =
        serde_json::from_slice(&thinpost(&home, &["status", "--json"]).stdout).unwrap();
    assert_eq!((&status["waiting"], &status["custody"]), (&3.into(), &0.into()));
    fails(&thinpost(&home, &["send", "bob", "--lines", "/dev/zero"]), 65, "/dev/zero: more than");
    let output = thinpost(&home, &["sync", "--for", "0s"]);
    fails(&output, 75, "the relay cannot be reached: it did not answer in time");
    assert!(output.stdout.starts_with(b"0 sent, 0 failed, 0 received, 3 waiting"), "{output:?}");
}

#[test]
fn a_home_in_use_is_said_to_be_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _guard = runtime.enter();
    let client = Client::builder(&home).open().unwrap();
    fails(&thinpost(&home, &["status"]), 75, "in use by another process");
    let answer = rpc(&home, &[r#"{"jsonrpc":"2.0","id":1,"method":"status"}"#]).remove(0);
    assert_eq!(answer["error"]["data"]["kind"], "home-in-use");
    runtime.block_on(client.close());
}

#[test]
fn what_there_is_to_know_is_printed_until_it_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path());
    // The same account under other keys: what is made of a seed is so but for Olm's, which draws its own.
    let add = ["contact", "add", "bob", &contact(1, relay())];
    let added = thinpost(&home, &add);
    assert!(added.status.success(), "{added:?}");
    let status = |more: &[&str]| {
        let output = thinpost(&home, &[&["status"], more].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let line = "bob has other keys: compare safety numbers\n";
    for more in [&[][..], &["--acknowledge"]] {
        assert!(status(more).ends_with(line), "{}", status(more));
    }
    assert!(!status(&[]).contains(line));
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&status(&["--json"])).unwrap()["notices"],
        json!([])
    );
    assert!(thinpost(&home, &["contact", "add", "bob", &contact(1, relay())]).status.success());
    let answers = rpc(
        &home,
        &[
            r#"{"jsonrpc":"2.0","id":1,"method":"status"}"#,
            r#"{"jsonrpc":"2.0","id":2,"method":"acknowledge","params":{"upto":2}}"#,
            r#"{"jsonrpc":"2.0","id":3,"method":"status"}"#,
        ],
    );
    let notice = &answers[0]["result"]["notices"][0];
    assert_eq!(
        (&notice["n"], &notice["kind"], &notice["contact"]),
        (&2.into(), &"keys-changed".into(), &"bob".into())
    );
    assert_eq!((&answers[1]["result"], &answers[2]["result"]["notices"]), (&json!({}), &json!([])));
}

/// A file with a passphrase beside the home.
fn passphrase(folder: &Path, text: &str) -> String {
    let path = folder.join(format!("{}.txt", text.len()));
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_home_with_a_passphrase_opens_with_it_alone_whatever_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let [right, wrong] = ["open sesame\n", "open sesam"].map(|text| passphrase(folder.path(), text));
    let with = |file: &str, args: &[&str]| thinpost(&home, &[&["--passphrase-file", file], args].concat());
    let made = with(&right, &["init", &relay().to_string(), "--for", "0s"]);
    assert!(made.status.success(), "{made:?}");
    let add = ["contact", "add", "bob", &contact(1, relay())];
    for args in [&["status"][..], &["ticket"], &["listen"], &["send", "bob", "hi"], &["sync"], &add] {
        fails(&thinpost(&home, args), 77, "pass --passphrase-file FILE");
        fails(&with(&wrong, args), 77, "this is not the home's passphrase");
    }
    fails(&with(&wrong, &["init", &relay().to_string()]), 77, "this is not the home's passphrase");
    fails(&with("/no/such/file", &["status"]), 66, "/no/such/file");
    fails(&with(&passphrase(folder.path(), "\n"), &["status"]), 65, "a passphrase has 1 to 4096 bytes");
    assert!(with(&right, &add).status.success());
    assert!(with(&right, &["send", "bob", "hi", "--offline"]).status.success());
    // The file may be named once and for all.
    let mut status = command(&home, &["status"]);
    let status = status.env("THINPOST_PASSPHRASE_FILE", &right).output().unwrap();
    assert!(String::from_utf8_lossy(&status.stdout).contains("waiting      1"), "{status:?}");
}

#[test]
fn a_passphrase_is_set_changed_and_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path());
    let [first, second] = ["first", "second"].map(|text| passphrase(folder.path(), text));
    let succeeds = |args: &[&str]| {
        let output = thinpost(&home, args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    fails(&thinpost(&home, &["--passphrase-file", &first, "status"]), 64, "the home has no passphrase");
    fails(&thinpost(&home, &["key", "set"]), 64, "--new-passphrase-file");
    let set = ["key", "set", "--new-passphrase-file"];
    fails(&thinpost(&home, &[&set[..], &[&first, "--none"]].concat()), 64, "cannot be used with");
    succeeds(&[&set[..], &[&first]].concat());
    fails(&thinpost(&home, &[&set[..], &[&second]].concat()), 77, "pass --passphrase-file FILE");
    succeeds(&[&["--passphrase-file", &first], &set[..], &[&second]].concat());
    let none = ["key", "set", "--none"];
    fails(&thinpost(&home, &[&["--passphrase-file", &first], &none[..]].concat()), 77, "not the home's");
    succeeds(&[&["--passphrase-file", &second], &none[..]].concat());
    assert!(succeeds(&["contact", "list"]).starts_with("bob\t"));
}

#[test]
fn a_home_is_wiped_without_its_passphrase_and_only_if_it_is_meant() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path());
    let set = ["key", "set", "--new-passphrase-file", &passphrase(folder.path(), "sesame")];
    assert!(thinpost(&home, &set).status.success());
    fails(&thinpost(&home, &["wipe"]), 64, "--yes");
    assert!(home.join("client.redb").exists());
    std::fs::write(home.join("listen.position"), [0; 8]).unwrap();
    assert!(thinpost(&home, &["--passphrase-file", "/no/such/file", "wipe", "--yes"]).status.success());
    assert!(!home.exists());
    fails(&thinpost(&home, &["wipe", "--yes"]), 66, "there is no home at");
}

#[test]
fn a_home_without_its_key_file_is_said_to_be_wiped_or_incomplete() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path());
    std::fs::remove_file(home.join("client.key")).unwrap();
    fails(&thinpost(&home, &["status"]), 66, "the home's key file is gone");
    let answer = rpc(&home, &[r#"{"jsonrpc":"2.0","id":1,"method":"status"}"#]).remove(0);
    assert_eq!(answer["error"]["data"]["kind"], "home-wiped");
}

#[test]
fn a_home_in_use_is_neither_wiped_nor_given_a_passphrase() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _guard = runtime.enter();
    let client = Client::builder(&home).open().unwrap();
    fails(&thinpost(&home, &["wipe", "--yes"]), 75, "in use by another process");
    fails(&thinpost(&home, &["key", "set", "--none"]), 75, "in use by another process");
    runtime.block_on(client.close());
    assert!(thinpost(&home, &["status"]).status.success());
}

#[test]
fn a_program_makes_and_opens_a_home_with_a_passphrase_over_rpc() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("bot");
    let [right, wrong] = ["open sesame", "open sesam"].map(|text| passphrase(folder.path(), text));
    let init = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"init","params":{{"ticket":"{}"}}}}"#, relay());
    let status = r#"{"jsonrpc":"2.0","id":2,"method":"status"}"#;
    let first = |file: Option<&String>, line: &str| {
        let named = file.map(|file| ["--passphrase-file", file.as_str()]);
        let args: Vec<_> = named.iter().flatten().copied().chain(["rpc"]).collect();
        answers(&run(&home, &args, format!("{line}\n"))).remove(0)
    };
    assert!(first(Some(&right), &init)["result"]["ticket"].is_string());
    assert_eq!(first(Some(&right), status)["result"]["waiting"], 0);
    for (file, kind) in [(None, "key-needed"), (Some(&wrong), "wrong-key")] {
        let error = &first(file, status)["error"];
        assert_eq!((&error["code"], &error["data"]["kind"]), (&(-32008).into(), &kind.into()));
    }
}

/// A model's file that no program has: the English one, changed a little.
fn model(folder: &Path) -> String {
    let english = concat!(env!("CARGO_MANIFEST_DIR"), "/../wire-format/assets/models/english.model");
    let mut parts = Parts::from_bytes(&std::fs::read(english).unwrap()).unwrap();
    parts.discount += 1;
    let path = folder.join("own.model");
    std::fs::write(&path, parts.to_bytes().unwrap()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_home_opened_with_a_model_says_so_in_its_tickets() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path());
    let model = model(folder.path());
    let ticket = |args: &[&str]| -> ContactTicket {
        let output = thinpost(&home, args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    let without = ticket(&["ticket"]);
    assert_eq!(without.models, Models::compiled_in().set());
    let with = ticket(&["--model", &model, "ticket", "--model", &model]);
    let mut models = Models::compiled_in();
    let name = models.add(&std::fs::read(&model).unwrap()).unwrap();
    assert!(with.models.contains(name) && !without.models.contains(name));
    assert_eq!(ContactTicket { models: without.models.clone(), ..with }, without);
}

#[test]
fn a_file_that_is_no_model_is_named_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let home = home(folder.path());
    let (model, bad) = (model(folder.path()), folder.path().join("bad.model"));
    let whole = std::fs::read(&model).unwrap();
    let bad_path = bad.to_str().unwrap();
    for (bytes, why) in [
        (b"hello".to_vec(), "no text model of version 1"),
        (whole[..whole.len() / 2].to_vec(), "the text model is damaged"),
        (vec![0; 2 << 20], "no text model has more than 1048576 bytes"),
    ] {
        std::fs::write(&bad, bytes).unwrap();
        let output = thinpost(&home, &["--model", &model, "--model", bad_path, "status"]);
        fails(&output, 65, "bad.model: ");
        fails(&output, 65, why);
    }
    fails(&thinpost(&home, &["--model", "/no/such/file", "status"]), 66, "/no/such/file");
    assert!(thinpost(&home, &["--model", bad_path, "wipe", "--yes"]).status.success());
}

#[test]
fn wrong_usage_is_one_line_and_help_names_the_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    fails(&thinpost(folder.path(), &["fly"]), 64, "fly");
    fails(&thinpost(folder.path(), &["send"]), 64, "NAME");
    fails(&thinpost(folder.path(), &["sync", "--budget", "16 parsecs"]), 64, "no unit of bytes");
    let help = thinpost(folder.path(), &["--help"]);
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("Exit codes:"));
}

fn rpc(home: &Path, lines: &[&str]) -> Vec<serde_json::Value> {
    answers(&run(home, &["rpc"], lines.join("\n") + "\n"))
}

fn answers(output: &Output) -> Vec<serde_json::Value> {
    assert!(output.status.success(), "{output:?}");
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

#[test]
fn a_program_makes_a_home_and_queues_a_message_over_rpc() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("bot");
    let init = format!(r#"{{"jsonrpc":"2.0","id":2,"method":"init","params":{{"ticket":"{}"}}}}"#, relay());
    let add = format!(
        r#"{{"jsonrpc":"2.0","id":3,"method":"contact.add","params":{{"name":"bob","ticket":"{}"}}}}"#,
        contact(1, relay())
    );
    let answers = rpc(
        &home,
        &[
            r#"{"jsonrpc":"2.0","id":1,"method":"status"}"#,
            &init,
            &add,
            r#"{"jsonrpc":"2.0","id":4,"method":"contact.list"}"#,
            r#"{"jsonrpc":"2.0","id":"five","method":"send","params":{"to":"bob","text":"hi"}}"#,
            r#"{"jsonrpc":"2.0","method":"send","params":{"to":"bob","data":"AP8="}}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"send","params":{"to":"bob","text":"a","data":"AP8="}}"#,
            r#"{"jsonrpc":"2.0","id":8,"method":"send","params":{"to":"eve","text":"hi"}}"#,
            "not json",
            r#"{"jsonrpc":"2.0","id":9,"method":"status"}"#,
            r#"{"jsonrpc":"2.0","id":10,"method":"ticket","params":{"for":"bob"}}"#,
            r#"{"jsonrpc":"2.0","id":11,"method":"ticket.list"}"#,
            r#"{"jsonrpc":"2.0","id":12,"method":"ticket.revoke","params":{"name":"bob"}}"#,
            r#"{"jsonrpc":"2.0","id":13,"method":"ticket.revoke","params":{"name":"rob"}}"#,
            r#"{"jsonrpc":"2.0","id":14,"method":"ticket.renew","params":{"all":true}}"#,
        ],
    );
    assert_eq!(answers[0]["error"]["data"]["kind"], "no-home");
    assert!(answers[1]["result"]["ticket"].as_str().unwrap().starts_with("tpc1"));
    assert_eq!(answers[2]["result"], json!({}));
    let listed = answers[3]["result"]["contacts"][0]["account"].as_str().unwrap();
    assert!(listed.starts_with(&person(1, relay()).account.to_string()), "{listed}");
    assert_eq!((&answers[4]["id"], &answers[4]["result"]["message"]), (&"five".into(), &1.into()));
    assert_eq!(answers[5]["error"]["code"], -32602, "a request without an id is not answered");
    assert_eq!(answers[6]["error"]["data"]["kind"], "unknown-contact");
    assert_eq!(answers[7]["error"]["code"], -32700);
    assert_eq!(answers[8]["result"]["waiting"], 2);
    let tickets = [1, 9, 13].map(|n| answers[n]["result"]["ticket"].as_str().unwrap());
    assert!(tickets[0] != tickets[1] && tickets[0] != tickets[2] && tickets[1].starts_with("tpc1"));
    assert_eq!(answers[10]["result"]["names"], json!(["bob"]));
    assert_eq!(answers[11]["result"], json!({ "tokens": 1, "shut_out": ["bob"], "unclaimed": [] }));
    assert_eq!(answers[12]["error"]["data"]["kind"], "unknown-ticket");
}
