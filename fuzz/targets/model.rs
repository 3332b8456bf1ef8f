//! `thinpost_fuzz::model` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| thinpost_fuzz::model::run(bytes));
