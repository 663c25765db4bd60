//! A loaded model: its weights, its vocabulary's handle, its metadata.

use std::any::Any;
use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use crate::engine::spec::{LlamaSpec, SplitMode};

use super::backend;
use super::error::LoadError;
use super::log;

/// The weights of a model. Freed with the last owner.
#[derive(Debug)]
pub(super) struct Weights {
    model: NonNull<sys::llama_model>,
}

// SAFETY: llama.cpp ties a model to no thread.
unsafe impl Send for Weights {}
// SAFETY: after loading, everything but the creation of a context only reads the model, and `load` creates its one
// context before it hands out a second owner.
unsafe impl Sync for Weights {}

impl Drop for Weights {
    fn drop(&mut self) {
        // SAFETY: made by llama.cpp and owned alone by now; contexts hold an owner, so none is left.
        unsafe { sys::llama_model_free(self.model.as_ptr()) }
    }
}

impl Weights {
    /// Loads the file. `progress` gets 0 to 1 and cancels by returning false.
    ///
    /// # Errors
    /// Bad devices or shares, or whatever llama.cpp says.
    pub(super) fn load(spec: &LlamaSpec, progress: &mut dyn FnMut(f32) -> bool) -> Result<Self, LoadError> {
        let path = CString::new(spec.path.as_os_str().as_encoded_bytes())
            .map_err(|_| LoadError::Parameter("the model's path has a NUL in it".to_owned()))?;
        let mut devices: Vec<_> = backend::devices_named(&spec.devices)?.iter().map(|device| device.handle).collect();
        devices.push(std::ptr::null_mut());
        let shares = shares(&spec.tensor_split)?;
        let mut progress = Progress { report: progress, cancelled: false, panic: None };

        let mut params = params(spec);
        if !spec.devices.is_empty() {
            params.devices = devices.as_mut_ptr();
        }
        if !spec.tensor_split.is_empty() {
            params.tensor_split = shares.as_ptr();
        }
        params.progress_callback = Some(report_progress);
        params.progress_callback_user_data = (&raw mut progress).cast();
        log::forget_errors();
        // SAFETY: everything that `params` points to lives until the call returns, and llama.cpp keeps none of it but
        // copies; exceptions are caught inside.
        let model = unsafe { sys::llama_model_load_from_file(path.as_ptr(), params) };
        if let Some(panic) = progress.panic {
            resume_unwind(panic);
        }
        match NonNull::new(model) {
            Some(model) => Ok(Self { model }),
            None if progress.cancelled => Err(LoadError::Cancelled),
            None => Err(LoadError::Model { path: spec.path.clone(), reason: reason() }),
        }
    }

    /// The model, for calls of llama.cpp.
    pub(super) fn as_ptr(&self) -> *mut sys::llama_model {
        self.model.as_ptr()
    }

    /// The vocabulary; lives as long as the weights.
    pub(super) fn vocab(&self) -> *const sys::llama_vocab {
        // SAFETY: the model is alive.
        unsafe { sys::llama_model_get_vocab(self.as_ptr()) }
    }

    /// Every scalar of the file's metadata, as text.
    pub(super) fn metadata(&self) -> Vec<(String, String)> {
        let model = self.as_ptr();
        // SAFETY: the model is alive; `read` passes buffers of the size that it says.
        let count = unsafe { sys::llama_model_meta_count(model) };
        let key = |i| read(|text, size| unsafe { sys::llama_model_meta_key_by_index(model, i, text, size) });
        let value = |i| read(|text, size| unsafe { sys::llama_model_meta_val_str_by_index(model, i, text, size) });
        (0..count).map(|i| (key(i), value(i))).collect()
    }

    /// A line such as "llama 135M Q4_1".
    pub(super) fn description(&self) -> String {
        // SAFETY: the model is alive; `read` passes buffers of the size that it says.
        read(|text, size| unsafe { sys::llama_model_desc(self.as_ptr(), text, size) })
    }
}

/// llama.cpp's last error, or a guess when it gave none.
pub(super) fn reason() -> String {
    log::last_error().unwrap_or_else(|| "llama.cpp gives no reason; is there enough memory?".to_owned())
}

/// Text that llama.cpp writes into a buffer: asked again with a larger one when it does not fit.
fn read(write: impl Fn(*mut c_char, usize) -> i32) -> String {
    let mut buffer = vec![0_u8; 256];
    loop {
        let len = usize::try_from(write(buffer.as_mut_ptr().cast(), buffer.len())).unwrap_or(0);
        if len < buffer.len() {
            let text = CStr::from_bytes_until_nul(&buffer).map(CStr::to_string_lossy);
            return text.map_or_else(|_| String::new(), |text| text.into_owned());
        }
        buffer.resize(len + 1, 0);
    }
}

fn params(spec: &LlamaSpec) -> sys::llama_model_params {
    // SAFETY: no precondition.
    let mut params = unsafe { sys::llama_model_default_params() };
    params.n_gpu_layers = spec.n_gpu_layers;
    params.split_mode = match spec.split_mode {
        SplitMode::None => sys::LLAMA_SPLIT_MODE_NONE,
        SplitMode::Layer => sys::LLAMA_SPLIT_MODE_LAYER,
        SplitMode::Row => sys::LLAMA_SPLIT_MODE_ROW,
        SplitMode::Tensor => sys::LLAMA_SPLIT_MODE_TENSOR,
    };
    params.load_mode = match (spec.use_mmap, spec.use_mlock) {
        (false, false) => sys::LLAMA_LOAD_MODE_NONE,
        (true, false) => sys::LLAMA_LOAD_MODE_MMAP,
        (false, true) => sys::LLAMA_LOAD_MODE_MLOCK,
        (true, true) => sys::LLAMA_LOAD_MODE_MMAP_MLOCK,
    };
    params.main_gpu = i32::try_from(spec.main_gpu).unwrap_or(i32::MAX);
    params
}

/// The shares, filled up with zeros to the length that llama.cpp reads.
fn shares(tensor_split: &[f32]) -> Result<Vec<f32>, LoadError> {
    // SAFETY: no precondition.
    let most = unsafe { sys::llama_max_devices() };
    if tensor_split.len() > most {
        let given = tensor_split.len();
        return Err(LoadError::Parameter(format!("tensor_split has {given} shares, this build allows {most} devices")));
    }
    let mut shares = tensor_split.to_vec();
    shares.resize(most, 0.0);
    Ok(shares)
}

struct Progress<'a> {
    report: &'a mut dyn FnMut(f32) -> bool,
    cancelled: bool,
    /// A panic of `report`, which must not unwind through C++.
    panic: Option<Box<dyn Any + Send>>,
}

unsafe extern "C" fn report_progress(progress: f32, user_data: *mut c_void) -> bool {
    // SAFETY: `load` passes a `Progress` that lives during the call, and llama.cpp reports from one thread.
    let state = unsafe { &mut *user_data.cast::<Progress<'_>>() };
    match catch_unwind(AssertUnwindSafe(|| (state.report)(progress))) {
        Ok(go_on) => state.cancelled |= !go_on,
        Err(panic) => state.panic = Some(panic),
    }
    !state.cancelled && state.panic.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_gpus_and_memory_reaches_llama_cpp() {
        let spec = LlamaSpec {
            n_gpu_layers: 7,
            main_gpu: 1,
            split_mode: SplitMode::Row,
            use_mmap: false,
            use_mlock: true,
            ..LlamaSpec::new("m.gguf")
        };
        let params = params(&spec);
        assert_eq!((params.n_gpu_layers, params.main_gpu), (7, 1));
        assert_eq!((params.split_mode, params.load_mode), (sys::LLAMA_SPLIT_MODE_ROW, sys::LLAMA_LOAD_MODE_MLOCK));
        let shares = shares(&[3.0, 1.5]).expect("two devices at least");
        assert!(shares[..2] == [3.0, 1.5] && shares[2..].iter().all(|share| *share == 0.0), "{shares:?}");
    }
}
