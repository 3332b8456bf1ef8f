//! `thinpost_fuzz::datagram` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| thinpost_fuzz::datagram::run(bytes));
