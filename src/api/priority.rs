//! Priority of a request: `priority` as in vLLM, `service_tier` as in OpenAI, within what the caller's key allows.

use cllm_actors::priority::PRIORITIES;

use crate::api::fields::Fields;
use crate::http::auth::Tenant;
use crate::http::error::ApiError;

#[cfg(test)]
mod tests;

/// What `service_tier: priority` asks for, and from where on a request counts as of that tier.
const PRIORITY_TIER: i32 = -100;

/// The same for `flex`.
const FLEX_TIER: i32 = 100;

/// The priorities that a caller may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// Of requests that ask for none.
    default: i32,
    /// The best one.
    best: i32,
}

/// The priority that a request has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// Lower runs first.
    pub(crate) priority: i32,
    /// The service tier that this is, if the request named one.
    pub(crate) tier: Option<&'static str>,
}

impl Allowance {
    /// A key's priority is its default and its best; without keys everybody may have any.
    pub(crate) fn of(tenant: Option<&Tenant>) -> Self {
        match tenant {
            Some(tenant) => Self { default: tenant.priority(), best: tenant.priority() },
            None => Self { default: 0, best: *PRIORITIES.start() },
        }
    }

    /// The best priority.
    pub(crate) fn best(self) -> i32 {
        self.best
    }
}

/// Takes `priority` and `service_tier` out of the request; of both, `priority` counts.
///
/// # Errors
/// A wrong type or value, or a `priority` better than the key's: 400 with the field's name.
pub(crate) fn read(fields: &mut Fields, allowed: Allowance) -> Result<Chosen, ApiError> {
    let range = i64::from(*PRIORITIES.start())..=i64::from(*PRIORITIES.end());
    let asked = fields.integer(&["priority"], range)?.map(|priority| priority as i32);
    let tier = fields.string(&["service_tier"])?;
    let of_tier = tier.as_deref().map_or(Ok(allowed.default), |tier| of_tier(tier, allowed))?;
    let priority = match asked {
        Some(asked) if asked < allowed.best => return Err(not_allowed(asked, allowed.best)),
        Some(asked) => asked,
        None => of_tier,
    };
    Ok(Chosen { priority, tier: tier.map(|_| tier_of(priority)) })
}

/// A tier moves a request away from its key's default in one direction only, and never beyond what the key may have.
fn of_tier(tier: &str, allowed: Allowance) -> Result<i32, ApiError> {
    match tier {
        // OpenAI's `scale` is bought capacity, of which there is none here.
        "auto" | "default" | "scale" => Ok(allowed.default),
        "priority" => Ok(PRIORITY_TIER.min(allowed.default).max(allowed.best)),
        "flex" => Ok(FLEX_TIER.max(allowed.default)),
        other => {
            let message = format!("`service_tier` must be auto, default, priority or flex, got `{other}`");
            Err(ApiError::invalid("service_tier".to_owned(), "invalid_value", message))
        }
    }
}

fn tier_of(priority: i32) -> &'static str {
    match priority {
        ..=PRIORITY_TIER => "priority",
        FLEX_TIER.. => "flex",
        _ => "default",
    }
}

fn not_allowed(asked: i32, best: i32) -> ApiError {
    let message = format!("`priority` {asked} is better than this API key may have: {best} or more (lower runs first)");
    ApiError::invalid("priority".to_owned(), "priority_not_allowed", message)
}
