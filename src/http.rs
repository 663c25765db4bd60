//! The HTTP side: connections, routes, keys, errors. It knows HTTP and no model.
//!
//! A request meets [`route`] (which handler), [`auth`] (whose key), then the handler, which reads its [`body`] and
//! answers or fails with an [`error::ApiError`].

pub mod auth;
pub mod body;
pub mod context;
pub mod cors;
pub mod error;
pub mod request_log;
pub mod route;
