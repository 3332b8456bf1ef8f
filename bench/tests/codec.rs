//! `bench codec` as a program: what is allocated is counted for the whole process, so only one measurement
//! may run in it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn codec_tells_size_time_and_memory_of_every_way() {
    for of in ["texts", "parcels"] {
        const MESSAGES: f64 = 60.0;
        let held_out = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora/held-out/en-chat.txt");
        let output = Command::new(env!("CARGO_BIN_EXE_bench"))
            .args(["--json", "codec", "--as", of, "--messages", &MESSAGES.to_string(), "--corpus"])
            .arg(held_out)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut figures: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            let text = |field: &str| row[field].as_str().unwrap().to_owned();
            figures.entry(text("mode")).or_default().insert(text("metric"), row["value"].as_f64().unwrap());
        }
        let chosen = |metric| figures.values().filter_map(|figures| figures.get(metric)).sum::<f64>();
        assert_eq!(
            [chosen("chosen alone"), chosen("chosen in 10"), chosen("chosen in 50")],
            [MESSAGES, 6.0, 2.0]
        );
        let raw = figures.remove("raw").unwrap();
        figures.remove("the texts");
        figures.retain(|mode, _| !mode.starts_with("xz"));
        assert_eq!(figures.len(), 22, "{:?}", figures.keys());
        for (mode, figures) in &figures {
            for metric in ["alone", "in 10", "in 50"] {
                assert!(figures[metric] > 1.0 && figures[metric] <= raw[metric], "{mode}, {metric}");
            }
            for metric in ["encode alone", "decode alone", "encode memory", "decode memory"] {
                assert!(figures[metric] > 0.0, "{mode}, {metric}");
            }
        }
        // PPMd takes an arena of 262 kB, and little beside it.
        for metric in ["encode memory", "decode memory"] {
            let found = figures["PPMd H, order 5"][metric];
            assert!((262.0..300.0).contains(&found), "{metric}: {found} kB");
        }
        // Brotli's tables for its window alone are more than a zstd context.
        assert!(figures["brotli 11, its own dictionary"]["encode memory"] > 300.0);
    }
}
