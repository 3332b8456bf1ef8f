//! Lists the profiles that lie in `profiles/`: whoever wants another one adds a file.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo says it")).join("profiles");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("the folder of the profiles can be read")
        .map(|entry| entry.expect("and each of its entries").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    let entries = files.iter().map(|path| {
        let name = path.file_stem().expect("it has a name").to_string_lossy();
        format!("    ({name:?}, include_str!({path:?})),\n")
    });
    let list = format!("&[\n{}]\n", entries.collect::<String>());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says it"));
    fs::write(out.join("profiles.rs"), list).expect("what is built can be written");
}
