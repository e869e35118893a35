use super::*;

#[test]
fn a_question_for_versions_from_the_future_is_read_whatever_stands_behind_it() {
    let mut frame = BytesMut::new();
    frame.put_i16(18);
    frame.put_i16(99);
    frame.put_i32(7);
    frame.put_slice(&[0xff; 3]);
    let request = Request::read(frame.freeze()).unwrap();
    assert!(request.is_from_the_future());
    assert_eq!((request.head.version, request.head.correlation_id), (0, 7));
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let head = |key: i16, version: i16| {
        let mut frame = BytesMut::new();
        frame.put_i16(key);
        frame.put_i16(version);
        frame.put_i32(1);
        frame.put_i16(-1);
        Request::read(frame.freeze()).map(|_| ()).unwrap_err().to_string()
    };
    assert_eq!(head(26, 0), "api key 26 is not supported by a development broker");
    assert_eq!(head(0, 2), "version 2 of api key 0 is not supported, only 3 to 13");
}

#[test]
fn the_table_of_every_request_in_every_version_is_what_the_library_writes() {
    let batch = Bytes::from(crate::batch::tests::batch(&[1]));
    for samples::Sample { key, version, frame, body_at } in samples::all(uuid::Uuid::from_u128(7), &batch) {
        let request = Request::read(frame.clone()).unwrap();
        assert_eq!((request.head.key, request.head.version, request.head.client_id.as_str()), (key, version, "sample"));
        let shape = request.shape.unwrap();
        let body = &frame[body_at..];
        assert_eq!(request.body, body, "{key:?} {version}");
        assert_eq!(shape.check(version, body, MAX_ELEMENTS), Ok(()), "{key:?} {version}");
        for length in 0..body.len() {
            assert_eq!(
                shape.check(version, &body[..length], MAX_ELEMENTS),
                Err(BadShape::CutOff),
                "{key:?} {version}, {length} bytes"
            );
        }
    }
}
