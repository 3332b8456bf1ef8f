use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("relay.toml")).map_err(|error| error.to_string())
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(parse(""), Ok(Config::default()));
}

#[test]
fn the_effective_configuration_reads_back_as_itself() {
    let mut config = Config::default();
    assert_eq!(parse(&config.to_toml()), Ok(config.clone()));
    config.registration = Registration::AllowList;
    config.allow_list = [AccountKey([0xab; 32]), AccountKey([1; 32])].into();
    config.advertise = vec!["203.0.113.5:4433".parse().unwrap(), "[2001:db8::1]:443".parse().unwrap()];
    config.data = Some("/srv/relay".into());
    config.mailbox.lifetime_days = 7;
    assert_eq!(parse(&config.to_toml()), Ok(config));
}

#[test]
fn the_example_file_says_the_defaults() {
    let example = include_str!("../../gateway.example.toml");
    assert_eq!(parse(example), Ok(Config::default()));
    // Every setting that the file shows as a comment is a true one, too.
    let shown: String = example
        .lines()
        .map(|line| line.strip_prefix("#= ").unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n");
    let config = parse(&shown).unwrap();
    assert_eq!(config.advertise.len(), 2);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_known_ones() {
    let error = parse("listen = \"0.0.0.0:1\"\n\n[mailbox]\nenvelope_max = 5\n").unwrap_err();
    assert_eq!(
        error,
        "relay.toml, line 4, column 1: unknown field `envelope_max`, \
         expected one of `envelopes_max`, `bytes_max`, `request_envelopes_max`, `request_bytes_max`, \
         `envelope_bytes_max`, `lifetime_days`"
    );
}

#[test]
fn a_value_out_of_range_is_named_with_its_line_and_key() {
    let cases = [
        (
            "[mailbox]\nenvelopes_max = 0",
            "line 2, column 17: mailbox.envelopes_max: \
             invalid value: integer `0`, expected a whole number from 1 to 1000000",
        ),
        (
            "\n\nlimits.account.messages_burst = -3",
            "line 3, column 33: limits.account.messages_burst: \
             invalid value: integer `-3`, expected a whole number from 1 to 1000000",
        ),
        (
            "[limits]\nkeys_max = \"many\"",
            "line 2, column 12: limits.keys_max: \
             invalid type: string \"many\", expected a whole number from 1000 to 10000000",
        ),
        (
            "registration = \"closed\"",
            "line 1, column 16: registration: \
             unknown variant `closed`, expected one of `invite`, `open`, `allow-list`",
        ),
        (
            "advertise = [\"192.0.2.1:1\", \"here\"]",
            "line 1, column 29: advertise: invalid socket address syntax",
        ),
        ("data = \"\"", "line 1, column 8: data: invalid value: string \"\", expected the name of a folder"),
        ("listen = \"everywhere\"", "line 1, column 10: listen: invalid socket address syntax"),
        (
            "registration = \"allow-list\"\nallow_list = [\n  \"12\",\n]",
            "line 3, column 3: allow_list: \
             invalid value: string \"12\", expected an account's key as 64 hexadecimal digits",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text).unwrap_err(), format!("relay.toml, {expected}"), "{text}");
    }
}

#[test]
fn what_is_no_toml_is_one_line_with_its_place() {
    let error = parse("\nlisten = \"0.0.0.0:1\n").unwrap_err();
    assert!(error.starts_with("relay.toml, line 2, column "), "{error}");
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn settings_that_do_not_go_together_are_refused_at_the_line_to_change() {
    let key = "ab".repeat(32);
    let cases = [
        (
            "data = \"x\"\nregistration = \"allow-list\"".to_owned(),
            "line 2, column 1: registration: \"allow-list\" needs at least one account in allow_list",
        ),
        (
            format!("\nallow_list = [\"{key}\"]"),
            "line 2, column 1: allow_list: it counts only with registration = \"allow-list\"",
        ),
        (
            "listen = \"0.0.0.0:1\"\n[objects]\nbytes_max = 1000".to_owned(),
            "line 2, column 2: objects: an object of object_bytes_max = 16777216 needs a bytes_max as large",
        ),
        (
            "[limits]\nincoming_bytes_max = 5000".to_owned(),
            "line 1, column 2: limits: incoming_bytes_max is less than incoming_bytes_each_max = 16384",
        ),
        (
            "[limits]\nstrangers_max = 64".to_owned(),
            "line 1, column 2: limits: with strangers_max = 64 retry_from is 12 at most, or 65536 to ask nobody: \
             forged addresses would take all places before anybody is asked",
        ),
        (
            "[store]\nreserve_bytes = 51199999\n[mailbox]\nenvelopes_max = 10000".to_owned(),
            "line 1, column 2: store: with mailbox.envelopes_max = 10000 reserve_bytes is 51200000 at least, or 0 to keep \
             none: on a full disk whoever has read all of a mailbox could not say so",
        ),
        (
            "advertise = [\"0.0.0.0:4433\"]".to_owned(),
            "line 1, column 1: advertise: nobody can reach 0.0.0.0:4433; name an address and a port",
        ),
        (
            format!("advertise = [{}]", "\"192.0.2.1:1\",".repeat(9)),
            "line 1, column 1: advertise: a ticket holds at most 8 addresses",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(&text).unwrap_err(), format!("relay.toml, {expected}"));
    }
}

#[test]
fn a_small_disk_may_have_a_small_reserve_and_large_mailboxes_one_to_match() {
    for (envelopes, reserve) in [(10_000, 51_200_000u64), (1_000_000, 0), (1_000, 1)] {
        let text = format!("[store]\nreserve_bytes = {reserve}\n[mailbox]\nenvelopes_max = {envelopes}");
        assert!(parse(&text).is_ok(), "{text}");
    }
}

#[test]
fn a_sections_missing_keys_keep_their_defaults() {
    let config = parse("[limits.account]\nmessages_burst = 7\n").unwrap();
    let defaults = LimitsConfig::default().account;
    assert_eq!(config.limits.account, PaceLimits { messages_burst: 7, ..defaults });
    assert_eq!(config.limits.mailbox, LimitsConfig::default().mailbox);
}

#[test]
fn what_a_file_says_of_objects_reaches_the_store() {
    let config = parse("[objects]\nobjects_max = 0\nbytes_max = 3000\nobject_bytes_max = 2000\n").unwrap();
    let quota = ObjectQuota { objects_max: 0, bytes_max: 3_000, object_bytes_max: 2_000 };
    assert_eq!(config.store_config().objects, quota);
    assert!(parse("[objects]\nobject_bytes_max = 16777217\n").unwrap_err().contains("from 1 to 16777216"));
}

#[test]
fn no_default_exceeds_what_a_file_may_say() {
    // Reading the printed defaults back goes through every range.
    assert!(parse(&Config::default().to_toml()).is_ok());
}

#[test]
fn a_file_that_is_missing_or_huge_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.toml");
    assert!(matches!(Config::load(&path), Err(ConfigError::Unreadable { .. })));
    std::fs::write(&path, "#".repeat(FILE_BYTES_MAX as usize + 1)).unwrap();
    assert!(matches!(Config::load(&path), Err(ConfigError::Unreadable { .. })));
    std::fs::write(&path, "registration = \"open\"").unwrap();
    assert_eq!(Config::load(&path).unwrap().registration, Registration::Open);
}
