//! The HTTP side: connections, routes, keys, errors. It knows HTTP and no model.
//!
//! A request's way: [`server`] accepts the connection, [`connection`] reads the head, [`envelope`] gives it its id and
//! its log line, [`dispatch`] finds its route in the table of [`route`] and checks the key with [`auth`]; the handler
//! reads its [`body`] and answers, as a stream with [`sse`], or fails with an [`error::ApiError`].

pub mod auth;
pub mod body;
pub mod connection;
pub mod context;
pub mod cors;
pub mod dispatch;
pub mod envelope;
pub mod error;
pub mod gauge;
pub mod health;
pub mod request_log;
pub mod route;
pub mod server;
pub mod sse;
pub mod write_timeout;
