//! A client of a running server: asks a question and prints the answer as it comes, over plain HTTP and SSE.
//!
//! ```text
//! make run
//! cargo run --example stream_client                               # asks the server at 127.0.0.1:8080
//! cargo run --example stream_client 127.0.0.1:9000 "Who are you?"
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to its terminal")]

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

const QUESTION: &str = "What is the capital of France? Answer in one short sentence.";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let question = arguments.next().unwrap_or_else(|| QUESTION.to_owned());

    let response = ask(&address, &question).await?;
    if !response.status().is_success() {
        let (status, body) = (response.status(), response.into_body().collect().await?.to_bytes());
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
    }
    print_stream(response.into_body()).await
}

async fn ask(address: &str, question: &str) -> Result<Response<Incoming>, Box<dyn Error>> {
    let socket = TcpStream::connect(address).await;
    let socket = socket.map_err(|error| format!("no server at {address} ({error}); `make run` starts one"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    // Ends with the connection, which ends with the response; its error, if any, is the body's error, too.
    tokio::spawn(connection);
    let body = json!({
        "messages": [{ "role": "user", "content": question }],
        "stream": true,
    });
    let request = Request::post("/v1/chat/completions")
        .header(HOST, address)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.to_string())))?;
    Ok(sender.send_request(request).await?)
}

/// A chunk of the body may hold several events, and may end in the middle of one.
async fn print_stream(mut body: Incoming) -> Result<(), Box<dyn Error>> {
    let mut unread = Vec::new();
    while let Some(frame) = body.frame().await {
        unread.extend_from_slice(&frame?.into_data().unwrap_or_default());
        while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unread.drain(..=end).collect();
            print_line(std::str::from_utf8(&line)?.trim_end())?;
        }
    }
    println!();
    Ok(())
}

/// Lines that begin with a colon are comments: a place in the queue, or a ping.
fn print_line(line: &str) -> Result<(), Box<dyn Error>> {
    let Some(data) = line.strip_prefix("data: ").filter(|data| *data != "[DONE]") else { return Ok(()) };
    let chunk: Value = serde_json::from_str(data)?;
    if let Some(error) = chunk["error"]["message"].as_str() {
        return Err(error.to_owned().into());
    }
    print!("{}", chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
    Ok(io::stdout().flush()?)
}
