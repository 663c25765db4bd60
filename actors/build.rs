//! Compiles the C++ shim of `engine/llama` against the headers that llama-cpp-sys-2 has installed.

fn main() {
    #[cfg(feature = "llama")]
    shim();
}

#[cfg(feature = "llama")]
fn shim() {
    const SOURCE: &str = "src/engine/llama/shim.cpp";
    println!("cargo:rerun-if-changed={SOURCE}");
    let root = std::env::var("DEP_LLAMA_ROOT").expect("llama-cpp-sys-2 declares `links` and exports its root");
    cc::Build::new().cpp(true).std("c++17").include(format!("{root}/include")).file(SOURCE).compile("cllm_llama_shim");
}
