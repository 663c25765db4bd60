//! What may be asked for, and the sums.

use super::*;

fn read(body: Value) -> Result<Load, ApiError> {
    let Value::Object(fields) = body else { panic!("not an object") };
    Load::read(Fields::of(fields))
}

#[test]
fn absent_fields_mean_what_they_meant_to_the_cpp_server() {
    let load = read(json!({})).unwrap();
    let prompt = "Hello, world! How are you today?".to_owned();
    assert_eq!(load, Load { requests: 40, concurrency: 8, max_tokens: 50, prompt, temperature: 0.7 });
    assert_eq!(read(json!({ "requests": 3 })).unwrap().concurrency, 3, "never more at a time than there are");
}

#[test]
fn what_is_out_of_bounds_is_refused_by_name() {
    for (body, param) in [
        (json!({ "requests": 0 }), "requests"),
        (json!({ "requests": 1001 }), "requests"),
        (json!({ "requests": 4, "concurrency": 5 }), "concurrency"),
        (json!({ "requests": 1000, "concurrency": 129 }), "concurrency"),
        (json!({ "max_tokens": 4097 }), "max_tokens"),
        (json!({ "requests": 1000, "max_tokens": 201 }), "max_tokens"),
        (json!({ "temperature": 2.1 }), "temperature"),
        (json!({ "prompt": "" }), "prompt"),
        (json!({ "prompt": 3 }), "prompt"),
    ] {
        let error = read(body.clone()).expect_err(&body.to_string());
        assert_eq!((error.status().as_u16(), error.param()), (400, Some(param)), "{body}");
    }
}

#[test]
fn throughput_is_tokens_over_wall_time_and_failures_are_in_no_mean() {
    let run = |seconds, generated_tokens| {
        Ok(Run { seconds, first_token_seconds: Some(0.5), prompt_tokens: 3, generated_tokens })
    };
    // Two at a time: 4 s of wall time for 7 s of waiting.
    let data = summary(&[run(3.0, 30), run(4.0, 60), Err(GenerateError::EngineCrashed)], 4.0);
    assert_eq!(
        (&data["total_requests"], &data["successful_requests"], &data["failed_requests"]),
        (&json!(3), &json!(2), &json!(1))
    );
    assert_eq!((&data["avg_throughput"], &data["avg_tokens_per_second"]), (&json!(22.5), &json!(12.5)));
    assert_eq!((&data["min_response_time"], &data["max_response_time"]), (&json!(3.0), &json!(4.0)));
    assert_eq!((&data["total_tokens_processed"], &data["avg_generated_tokens"]), (&json!(96), &json!(45.0)));
    let nothing = summary(&[Err(GenerateError::EngineCrashed)], 1.0);
    assert_eq!((&nothing["avg_response_time"], &nothing["avg_throughput"]), (&json!(0.0), &json!(0.0)));
}
