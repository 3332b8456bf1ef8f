//! Where the home is, and the key that it opens with.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thinpost_client::{Builder, Client, HomeKey, Models, OpenError};
use zeroize::Zeroizing;

use crate::failure::{Failure, exit};

/// No passphrase is longer, bytes: what is was read from the wrong file.
const PASSPHRASE_BYTES_MAX: u64 = 4_096;

/// No text model's file is longer, bytes.
const MODEL_BYTES_MAX: u64 = 1 << 20;

/// A home that is there, or is to be made.
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    pub(crate) key: Option<HomeKey>,
    pub(crate) models: Models,
}

impl Place {
    pub(crate) fn builder(&self) -> Builder {
        let builder = Client::builder(&self.folder).models(self.models.clone());
        match &self.key {
            Some(key) => builder.key(key.clone()),
            None => builder,
        }
    }

    pub(crate) fn open(&self) -> Result<Client, OpenError> {
        self.builder().open()
    }
}

/// The text models of this program, and those in files.
pub(crate) fn models_of_files(paths: &[PathBuf]) -> Result<Models, Failure> {
    let mut models = Models::compiled_in();
    for path in paths {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MODEL_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(|error| Failure::of_file(path.display(), &error))?;
        let bad = |why: &dyn fmt::Display| Failure::new(exit::DATA, format!("{}: {why}", path.display()));
        if bytes.len() as u64 > MODEL_BYTES_MAX {
            return Err(bad(&format_args!("no text model has more than {MODEL_BYTES_MAX} bytes")));
        }
        models.add(&bytes).map_err(|error| bad(&error))?;
    }
    Ok(models)
}

/// The passphrase in a file, less the newline that ends it.
pub(crate) fn key_of_file(path: &Path) -> Result<HomeKey, Failure> {
    let of_file = |error: io::Error| Failure::of_file(path.display(), &error);
    // Room for all: what is moved when a buffer grows is not overwritten.
    let mut bytes = Zeroizing::new(Vec::with_capacity(PASSPHRASE_BYTES_MAX as usize + 1));
    File::open(path)
        .map_err(of_file)?
        .take(PASSPHRASE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(of_file)?;
    let length = || {
        let problem = format!("{}: a passphrase has 1 to {PASSPHRASE_BYTES_MAX} bytes", path.display());
        Failure::new(exit::DATA, problem)
    };
    if bytes.len() as u64 > PASSPHRASE_BYTES_MAX {
        return Err(length());
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| Failure::not_text(path.display(), error))?;
    let passphrase = text.strip_suffix('\n').unwrap_or(text);
    let passphrase = passphrase.strip_suffix('\r').unwrap_or(passphrase);
    if passphrase.is_empty() {
        return Err(length());
    }
    Ok(HomeKey::from_passphrase(passphrase))
}
