//! `thinpost_fuzz::seal` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| thinpost_fuzz::seal::run(bytes));
