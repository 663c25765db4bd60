//! llama.cpp as it is in this process: set up once; its devices and CPU features.

use std::ffi::{CStr, c_char};
use std::sync::OnceLock;

use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_sys_2 as sys;

use super::error::LoadError;
use super::log;

/// Sets llama.cpp up, the first time it is called.
pub(super) fn init() {
    static BACKEND: OnceLock<Option<LlamaBackend>> = OnceLock::new();
    BACKEND.get_or_init(|| {
        log::install();
        // An error says that the process has set it up already, outside of this crate.
        LlamaBackend::init().ok()
    });
}

/// Whether this build has a GPU to compute on.
pub(super) fn has_gpu() -> bool {
    // SAFETY: no precondition.
    unsafe { sys::llama_supports_gpu_offload() }
}

/// A compute device of ggml.
#[derive(Debug, Clone)]
pub(super) struct Device {
    pub(super) handle: sys::ggml_backend_dev_t,
    /// Such as `CUDA0`.
    pub(super) name: String,
    description: String,
    pub(super) on_gpu: bool,
}

impl Device {
    /// Bytes free on the device.
    pub(super) fn free_bytes(&self) -> u64 {
        let (mut free, mut total) = (0, 0);
        // SAFETY: devices are never freed.
        unsafe { sys::ggml_backend_dev_memory(self.handle, &raw mut free, &raw mut total) };
        free as u64
    }
}

/// Every device that ggml knows.
pub(super) fn devices() -> Vec<Device> {
    // SAFETY: no precondition.
    let count = unsafe { sys::ggml_backend_dev_count() };
    (0..count).map(device).collect()
}

fn device(index: usize) -> Device {
    // SAFETY: `index` is below the count, which only grows; names are strings that live as long as the process.
    unsafe {
        let handle = sys::ggml_backend_dev_get(index);
        let kind = sys::ggml_backend_dev_type(handle);
        Device {
            handle,
            name: string(sys::ggml_backend_dev_name(handle)),
            description: string(sys::ggml_backend_dev_description(handle)),
            on_gpu: [sys::GGML_BACKEND_DEVICE_TYPE_GPU, sys::GGML_BACKEND_DEVICE_TYPE_IGPU].contains(&kind),
        }
    }
}

/// The devices of these names; none of them may be the CPU, which always computes what is left.
///
/// # Errors
/// `Parameter` names a device that does not exist and those that do.
pub(super) fn devices_named(names: &[String]) -> Result<Vec<Device>, LoadError> {
    let known: Vec<_> = devices().into_iter().filter(|device| device.on_gpu).collect();
    let find = |name: &String| {
        let found = known.iter().find(|device| device.name.eq_ignore_ascii_case(name)).cloned();
        found.ok_or_else(|| LoadError::Parameter(format!("unknown device `{name}`; this build has {}", list(&known))))
    };
    names.iter().map(find).collect()
}

fn list(devices: &[Device]) -> String {
    if devices.is_empty() {
        return "the CPU only".to_owned();
    }
    devices.iter().map(|device| device.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Devices and CPU features on one line.
pub(super) fn system() -> String {
    // llama.cpp writes it into one static buffer: asked once, by one thread.
    static FEATURES: OnceLock<String> = OnceLock::new();
    // SAFETY: the string lives until the next call, and there is none.
    let features = FEATURES.get_or_init(|| unsafe { string(sys::llama_print_system_info()) });
    let devices: Vec<_> =
        devices().into_iter().map(|device| format!("{} ({})", device.name, device.description.trim())).collect();
    format!("{}; {}", devices.join(", "), features.trim_end_matches([' ', '|']))
}

/// Elements and bytes of one block of a tensor type.
pub(super) fn tensor_type(kind: u32) -> Option<(u64, u64)> {
    if kind >= sys::GGML_TYPE_COUNT {
        return None;
    }
    // SAFETY: the type is in range. Types that were removed have blocks of nothing.
    let (block, bytes) = unsafe { (sys::ggml_blck_size(kind), sys::ggml_type_size(kind)) };
    let block = u64::try_from(block).ok().filter(|block| *block > 0)?;
    (bytes > 0).then_some((block, bytes as u64))
}

/// A copy of a string of llama.cpp; empty for null.
///
/// # Safety
/// `text` must be null or end with NUL.
pub(super) unsafe fn string(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller vouches for the rest.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
