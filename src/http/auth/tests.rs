//! API keys.

use cllm_actors::request::TenantId;
use hyper::HeaderMap;

use super::{KeyRing, Tenant, tenants};

fn ring<const N: usize>(keys: [&str; N]) -> KeyRing {
    KeyRing::of_hashes(keys.map(|key| *blake3::hash(key.as_bytes()).as_bytes()))
}

fn headers(name: &'static str, value: &str) -> HeaderMap {
    HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
}

#[test]
fn each_configured_key_opens_in_either_header_under_its_own_name() {
    let ring = ring(["alpha", "beta"]);
    let alpha = ring.check(&headers("authorization", "Bearer alpha")).unwrap().unwrap();
    let beta = ring.check(&headers("x-api-key", "beta")).unwrap().unwrap();
    assert_ne!(alpha, beta);
    assert_eq!(alpha.as_str().len(), 8);
    assert_eq!(ring.check(&headers("authorization", "bearer  alpha ")).unwrap(), Some(alpha));
}

#[test]
fn no_key_and_a_wrong_key_are_the_same_401() {
    let ring = ring(["alpha"]);
    for wrong in [
        HeaderMap::new(),
        headers("authorization", "Bearer alph"),
        headers("authorization", "Basic alpha"),
        headers("authorization", "B"),
        headers("x-api-key", ""),
    ] {
        let error = ring.check(&wrong).unwrap_err();
        assert_eq!((error.status().as_u16(), error.code()), (401, "invalid_api_key"));
    }
}

#[test]
fn without_configured_keys_everybody_is_let_in_unnamed() {
    assert_eq!(KeyRing::default().check(&HeaderMap::new()).unwrap(), None);
}

#[test]
fn an_admin_key_opens_everything_and_other_keys_command_nothing() {
    let hash = |key: &str| *blake3::hash(key.as_bytes()).as_bytes();
    let admins = ring(["alpha", "both"]).with_admins([hash("root"), hash("both")]);
    for admin in ["root", "both"] {
        assert!(admins.check(&headers("x-api-key", admin)).unwrap().is_some());
        assert!(admins.check_admin(&headers("x-api-key", admin)).is_ok());
    }
    let refused = |ring: &KeyRing, headers: &HeaderMap| {
        let error = ring.check_admin(headers).unwrap_err();
        (error.status().as_u16(), error.code())
    };
    assert_eq!(refused(&admins, &headers("x-api-key", "alpha")), (403, "admin_required"));
    assert_eq!(refused(&admins, &headers("x-api-key", "wrong")), (401, "invalid_api_key"));
    assert_eq!(refused(&KeyRing::default(), &HeaderMap::new()), (403, "admin_disabled"));
    let no_admins = ring(["alpha"]);
    assert_eq!(refused(&no_admins, &headers("x-api-key", "alpha")), (403, "admin_disabled"));
    assert_eq!(refused(&no_admins, &HeaderMap::new()), (401, "invalid_api_key"));
}

#[test]
fn a_key_keeps_its_number_whatever_other_keys_there_are_and_shares_it_with_none() {
    let id = |ring: &KeyRing, key: &str| ring.check(&headers("x-api-key", key)).unwrap().unwrap().id();
    let (alone, several) = (ring(["beta"]), ring(["alpha", "beta", "gamma"]));
    assert_eq!(id(&alone, "beta"), id(&several, "beta"));
    assert_ne!(id(&several, "alpha"), id(&several, "beta"));
    assert_ne!(id(&alone, "beta"), TenantId::NOBODY);

    let alike = |last: u8| std::array::from_fn(|at| if at == 31 { last } else { 0 });
    let numbers: Vec<_> = tenants(&[alike(2), alike(1), alike(2)]).iter().map(Tenant::id).collect();
    assert_eq!(numbers, [TenantId(2), TenantId(1), TenantId(2)], "hashes that begin alike, with nobody's number");
}

#[test]
fn a_key_has_the_priority_in_its_place_also_as_an_admins() {
    let hash = |key: &str| *blake3::hash(key.as_bytes()).as_bytes();
    let keys = ring(["alpha", "beta", "gamma"]).with_admins([hash("root"), hash("beta")]).with_priorities(&[7, -100]);
    let priority = |key: &str| keys.check(&headers("x-api-key", key)).unwrap().unwrap().priority();
    assert_eq!(["alpha", "beta", "gamma", "root"].map(priority), [7, -100, 0, 0]);
}
