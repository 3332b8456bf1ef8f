//! Commands for a relay's store: checks, backups, and what is made of them.

use std::fmt::{self, Write};
use std::panic;
use std::path::Path;

use thinpost_gateway::backup;
#[cfg(unix)]
use thinpost_gateway::backup::BackupError;
#[cfg(unix)]
use thinpost_gateway::control;
use thinpost_gateway::folder::{Folder, FolderError};
use thinpost_gateway::store::{Counts, RedbStore, Report, StoreError};

use crate::cli::{BackupArgs, CheckArgs, Failure, RestoreArgs};
use crate::print;

/// Says what is wrong, a thing a line; what fails ends with one more line on the standard error.
pub(crate) fn check(args: &CheckArgs) -> Result<(), Failure> {
    let report = quietly(|| match &args.backup {
        Some(path) => backup::check(path).map_err(Failure::from),
        None => check_store(&args.data.folder()?),
    })?;
    name_faults(&report)?;
    if report.is_sound() {
        return print(&format!("sound: {}{}\n", said(&report.counts), remarks(&report)));
    }
    Err(Failure::new(Failure::DATA, format!("the store is unsound: {}", faults(&report))))
}

fn name_faults(report: &Report) -> Result<(), Failure> {
    let faults = report.faults.iter().map(|fault| format!("{fault}\n"));
    let remarks = report.remarks.iter().map(|remark| format!("remark: {remark}\n"));
    print(&faults.chain(remarks).collect::<String>())
}

fn faults(report: &Report) -> String {
    let named = report.faults.len() as u64;
    let mut said = format!("{} faults", named + report.unnamed);
    if report.unnamed > 0 {
        let _ = write!(said, ", of which the first {named} are named");
    }
    said + &remarks(report)
}

fn remarks(report: &Report) -> String {
    let count = report.remarks.len() as u64 + report.remarks_unnamed;
    if count == 0 { String::new() } else { format!("; {count} remarks") }
}

fn check_store(data: &Path) -> Result<Report, Failure> {
    let folder = Folder::of_relay(data)?;
    folder.require_store()?;
    let _lock = folder.lock_to_read()?;
    folder.keys()?;
    let report = RedbStore::check(&folder.store_path()).map_err(|error| Failure::from(&error))?;
    // Whatever is in it, no relay runs on it.
    if report.is_backup { Err(Failure::from(&StoreError::IsBackup)) } else { Ok(report) }
}

/// What redb panics over is told as a fault, in a line of its own.
pub(crate) fn quietly<T>(act: impl FnOnce() -> T) -> T {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let done = act();
    panic::set_hook(hook);
    done
}

pub(crate) fn back_up(args: &BackupArgs) -> Result<(), Failure> {
    let folder = Folder::of_relay(&args.data.folder()?)?;
    let counts = match folder.lock_to_read() {
        Ok(_lock) => quietly(|| backup::back_up_closed(&folder, &args.to))?,
        Err(in_use @ FolderError::InUse { .. }) => ask(&folder, &args.to, in_use)?,
        Err(error) => return Err(error.into()),
    };
    let bytes = backup::bytes(&args.to).map_err(|error| Failure::new(Failure::IO, error))?;
    print(&format!("backup made in {}: {}; {bytes} bytes\n", args.to.display(), said(&counts)))?;
    if args.no_check { Ok(()) } else { check_made(&args.to) }
}

/// Reads a backup that was just made as a restore would, while there is still a relay to make another of.
fn check_made(backup: &Path) -> Result<(), Failure> {
    let failed = |code, what: &dyn fmt::Display| {
        Failure::new(code, format!("the backup in {} is kept, and is not sound: {what}", backup.display()))
    };
    let report =
        quietly(|| backup::check(backup)).map_err(|error| failed(Failure::from(&error).code, &error))?;
    name_faults(&report)?;
    if !report.is_sound() {
        return Err(failed(Failure::DATA, &faults(&report)));
    }
    print(&format!("it is sound{}\n", remarks(&report)))
}

/// Has the relay that runs make the backup.
#[cfg(unix)]
fn ask(folder: &Folder, to: &Path, in_use: FolderError) -> Result<Counts, Failure> {
    let failed = |error| Failure::new(Failure::IO, format!("no backup was made: {error}"));
    let path = std::path::absolute(to).map_err(failed)?;
    match control::ask(folder, &path).map_err(failed)? {
        Some(Ok(_)) if !backup::is_there(&path)? => Err(Failure::new(
            Failure::IO,
            format!(
                "the relay has made a backup, but in a {} that is not seen from here: does it run apart?",
                path.display()
            ),
        )),
        Some(Ok(counts)) => Ok(counts),
        Some(Err(refused)) => Err(Failure::new(refused.code, refused.message)),
        // Another command has it, or a relay whose folder is too deep for a socket.
        None => Err(in_use.into()),
    }
}

#[cfg(not(unix))]
fn ask(_: &Folder, _: &Path, in_use: FolderError) -> Result<Counts, Failure> {
    Err(in_use.into())
}

pub(crate) fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let data = args.data.folder()?;
    let counts = quietly(|| backup::restore(&args.from, &data))?;
    print(&format!("restored in {}: {}\n", data.display(), said(&counts)))
}

/// The exit code of a failure, for whoever asked the relay.
#[cfg(unix)]
pub(crate) fn code_of(error: &BackupError) -> u8 {
    Failure::from(error).code
}

fn said(counts: &Counts) -> String {
    let Counts { accounts, devices, entries, bytes, objects, object_bytes } = counts;
    format!(
        "{accounts} accounts, {devices} devices, {entries} envelopes of {bytes} bytes, {objects} objects of {object_bytes}"
    )
}
