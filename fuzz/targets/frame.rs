//! Frames of both directions, letters and parcels: what is read is written again as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use thinpost_wire::frame::{ToDevice, ToRelay};
use thinpost_wire::letter::Letter;
use thinpost_wire::parcel::Parcel;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(frame) = ToRelay::decode(bytes) {
        assert_eq!(ToRelay::decode(&frame.encode()), Ok(frame));
    }
    if let Ok(frame) = ToDevice::decode(bytes) {
        assert_eq!(ToDevice::decode(&frame.encode()), Ok(frame));
    }
    if let Ok(parcel) = Parcel::decode(bytes) {
        assert_eq!(Parcel::decode(&parcel.encode()), Ok(parcel));
    }
    let _ = Letter::decode(bytes, &thinpost_wire::text::Models::compiled_in());
});
