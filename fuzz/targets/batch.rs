//! `thinpost_fuzz::batch` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| thinpost_fuzz::batch::run(bytes));
