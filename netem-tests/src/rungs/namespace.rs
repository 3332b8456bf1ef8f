//! A network namespace that lives as long as somebody holds it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns};

/// What to do where namespaces cannot be made.
const NEEDS: &str = "this needs Linux, iproute2 and util-linux, and root: \
     as another user, put `unshare --map-root-user --net` before the command";

/// A network namespace with nothing in it but `lo`. It is kept by a process that ends when its input does, so that nothing
/// is left of it however this process ends.
#[derive(Debug)]
pub struct Namespace {
    holder: Child,
    path: PathBuf,
}

impl Namespace {
    /// A new one, with `lo` up and without IPv6, whose own packets would be counted, too.
    ///
    /// # Errors
    /// Without root, or without `unshare`, `nsenter` and `ip`; the error says what is needed.
    pub fn new() -> io::Result<Self> {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo made && exec cat >/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("unshare: {error}; {NEEDS}")))?;
        let mut made = String::new();
        if let Some(stdout) = holder.stdout.take() {
            BufReader::new(stdout).read_line(&mut made)?;
        }
        if made.is_empty() {
            let output = holder.wait_with_output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            let text = format!("no network namespace: {}; {NEEDS}", said.trim());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let path = format!("/proc/{}/ns/net", holder.id()).into();
        let namespace = Self { holder, path };
        namespace.ip(&["link", "set", "lo", "up"])?;
        namespace
            .set("net/ipv6/conf/all/disable_ipv6", "1")
            .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
        Ok(namespace)
    }

    /// Its id, by which iproute2 finds it.
    pub(super) fn pid(&self) -> String {
        self.holder.id().to_string()
    }

    /// A command that runs in it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path.display())).arg("--").arg(program);
        command
    }

    /// Does something in it, as binding a socket, which then stays in it.
    ///
    /// # Errors
    /// As the action, or when the namespace cannot be entered.
    pub fn within<T: Send>(&self, action: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        // A thread of its own, as which namespace it is in is a thread's.
        let entered = || {
            setns(File::open(&self.path)?, CloneFlags::CLONE_NEWNET)?;
            action()
        };
        thread::scope(|scope| scope.spawn(entered).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs `ip` in it, and returns what it says.
    pub(super) fn ip(&self, args: &[&str]) -> io::Result<String> {
        self.run("ip", args)
    }

    /// Runs a program in it that ends by itself, and returns what it says.
    pub(super) fn run(&self, program: &str, args: &[&str]) -> io::Result<String> {
        let output = self.command(program).args(args).stdin(Stdio::null()).output();
        let output =
            output.map_err(|error| io::Error::new(error.kind(), format!("nsenter: {error}; {NEEDS}")))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("`{program} {}`: {}", args.join(" "), said.trim())))
    }

    /// Sets a parameter of its kernel.
    pub(super) fn set(&self, parameter: &str, value: &str) -> io::Result<()> {
        self.within(|| fs::write(format!("/proc/sys/{parameter}"), value))
    }

    /// Gives a device its address, brings it up, and sends through it what is for one of these.
    pub(super) fn set_up(&self, device: &str, address: Ipv4Addr, others: &[Ipv4Addr]) -> io::Result<()> {
        self.ip(&["addr", "add", &format!("{address}/32"), "dev", device])?;
        self.ip(&["link", "set", "dev", device, "up"])?;
        for other in others {
            self.ip(&["route", "add", &other.to_string(), "dev", device])?;
        }
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}
