//! `thinpost_fuzz::parcel` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| thinpost_fuzz::parcel::run(bytes));
