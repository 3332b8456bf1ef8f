//! `thinpost_fuzz::codec` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| thinpost_fuzz::codec::run(bytes));
