//! `thinpost_fuzz::rows` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| thinpost_fuzz::rows::run(bytes));
