//! A relay that is backed up while it runs, killed, and brought back in another folder.

use std::fs;
use std::process::{Command, Stdio};

use crate::kills::texts;
use crate::town::{Town, failure, output};

trait Upkeep {
    /// A command about a backup: `backup DIR`, `restore DIR` or `check --backup DIR`.
    fn upkeep(&self, args: &[&str]) -> Command;

    fn sync(&self, name: &str);
}

impl Upkeep for Town {
    fn upkeep(&self, args: &[&str]) -> Command {
        let mut gateway = Command::new(self.program("gateway"));
        gateway.args(args).stderr(Stdio::null());
        gateway
    }

    fn sync(&self, name: &str) {
        self.text(self.thinpost(name).args(["sync", "--for", "60s"]));
    }
}

#[test]
fn a_relay_that_comes_back_from_a_backup_in_another_folder_loses_and_repeats_nothing() {
    let mut town = Town::new();
    let texts = &texts()[..60];
    let backup = town.folder.path().join("backup");
    let backup = backup.to_str().unwrap();
    let send = |town: &Town, texts: &[String]| {
        let lines = town.folder.path().join("lines.txt");
        fs::write(&lines, texts.join("\n")).unwrap();
        assert!(town.send(&lines).child.wait().unwrap().success());
    };
    // Some are with Bob, some wait for him, and of those some he fetches after the backup; others come after it.
    send(&town, &texts[..20]);
    town.sync("bob");
    send(&town, &texts[20..30]);
    let made = town.text(town.gateway("backup").arg(backup));
    assert!(made.starts_with(&format!("backup made in {backup}: 2 accounts, 2 devices, ")), "{made}");
    town.sync("bob");
    send(&town, &texts[30..40]);
    town.kill_relay();

    let sound = town.text(&mut town.upkeep(&["check", "--backup", backup]));
    assert!(sound.starts_with("sound: 2 accounts, 2 devices, "), "{sound}");
    let old = town.text(&mut town.gateway("ticket"));
    fs::rename(town.data(), town.folder.path().join("lost")).unwrap();
    let restored = town.text(town.gateway("restore").arg(backup));
    assert!(restored.starts_with("restored in "), "{restored}");
    assert!(town.text(&mut town.gateway("check")).starts_with("sound: "));
    town.start_relay();
    assert_eq!(town.text(&mut town.gateway("ticket")), old, "it is the same relay to everybody");

    town.sync("bob");
    send(&town, &texts[40..]);
    assert_eq!(town.read(60), texts);
    for _ in 0..2 {
        town.sync("ann");
        town.sync("bob");
    }
    let status = town.status("bob");
    assert_eq!((&status["received"], &status["notices"]), (&60.into(), &serde_json::json!([])), "{status}");
    let status = town.status("ann");
    assert_eq!((&status["waiting"], &status["failed"]), (&0.into(), &0.into()), "{status}");
}

#[test]
fn a_relay_that_goes_on_after_a_backup_lets_nobody_put_another_in_its_place() {
    let town = Town::new();
    let backup = town.folder.path().join("backup");
    town.text(town.gateway("backup").arg(&backup));
    let again = output(town.gateway("backup").arg(&backup));
    assert_eq!(failure(&again, 73), format!("gateway: {} is not empty", backup.display()));
    let checked = output(&mut town.gateway("check"));
    assert!(failure(&checked, 75).contains("is in use by process "), "{checked:?}");
    let restored = output(town.gateway("restore").arg(&backup));
    assert!(failure(&restored, 75).contains("is in use by process "), "{restored:?}");
    // Nobody noticed.
    town.text(town.thinpost("ann").args(["send", "bob", "are you there?"]));
    town.sync("bob");
    assert_eq!(town.read(1), ["are you there?"]);
}

/// Each `send` opens the home, and more openings have said something than are remembered however long ago it was.
#[test]
fn what_many_sends_said_is_shown_once_when_it_comes_again_after_a_restore() {
    const COUNT: usize = 270;
    let mut town = Town::new();
    let backup = town.folder.path().join("backup");
    town.text(town.gateway("backup").arg(&backup));
    let texts: Vec<String> = (0..COUNT).map(|n| format!("message {n}")).collect();
    for text in &texts {
        town.text(town.thinpost("ann").args(["send", "bob", text, "--offline"]));
    }
    town.sync("ann");
    town.sync("bob");
    assert_eq!(town.read(COUNT), texts);

    town.kill_relay();
    fs::rename(town.data(), town.folder.path().join("lost")).unwrap();
    town.text(town.gateway("restore").arg(&backup));
    town.start_relay();
    let mut sent_again = 0;
    for _ in 0..3 {
        town.sync("bob");
        town.sync("ann");
        sent_again = sent_again.max(town.status("ann")["unconfirmed"].as_u64().unwrap());
    }
    assert_eq!(
        town.status("bob")["received"],
        COUNT,
        "of {sent_again} that were sent again some were shown twice"
    );
}
