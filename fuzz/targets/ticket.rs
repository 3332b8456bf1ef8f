//! `thinpost_fuzz::ticket` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| thinpost_fuzz::ticket::run(bytes));
