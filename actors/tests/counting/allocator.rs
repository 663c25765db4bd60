//! An allocator that counts for each thread, for the binary that declares it.
#![expect(unsafe_code, reason = "a global allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static COUNTED: Cell<(usize, isize)> = const { Cell::new((0, 0)) };
}

/// How often this thread has allocated, and how many bytes it has that it has not given back.
pub(crate) fn allocated() -> (usize, isize) {
    COUNTED.get()
}

fn count(allocations: usize, bytes: isize) {
    let (before, live) = COUNTED.get();
    COUNTED.set((before + allocations, live + bytes));
}

// SAFETY: all calls go to the system's allocator unchanged; counting does not allocate and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as isize);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, -(layout.size() as isize));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as isize - layout.size() as isize);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;
