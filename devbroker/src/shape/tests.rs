use super::requests;
use super::*;

#[test]
fn an_array_that_claims_more_than_there_is_is_refused_before_anything_is_allocated() {
    // Metadata, version 1: two thousand million topics in four bytes.
    assert_eq!(
        requests::METADATA.check(1, &i32::MAX.to_be_bytes(), MAX_ELEMENTS),
        Err(BadShape::TooManyElements(MAX_ELEMENTS))
    );
    assert_eq!(requests::METADATA.check(1, &1000_i32.to_be_bytes(), MAX_ELEMENTS), Err(BadShape::CutOff));
    assert_eq!(requests::METADATA.check(1, &(-1_i32).to_be_bytes(), MAX_ELEMENTS), Ok(()));
    assert_eq!(requests::METADATA.check(1, &(-2_i32).to_be_bytes(), MAX_ELEMENTS), Err(BadShape::NegativeLength));
    // Version 9: the same as a varint.
    assert_eq!(
        requests::METADATA.check(9, &[0xff, 0xff, 0xff, 0xff, 0x0f], MAX_ELEMENTS),
        Err(BadShape::TooManyElements(MAX_ELEMENTS))
    );
}

#[test]
fn bytes_behind_a_request_are_refused() {
    assert_eq!(requests::METADATA.check(1, &[0, 0, 0, 0, 7], MAX_ELEMENTS), Err(BadShape::Left(1)));
}
