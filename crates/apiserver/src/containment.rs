//! A panic while a request is worked at ends that request and nothing else.
//!
//! Anywhere else a panic means that something others rely on has gone: there it is better to end the program, and whoever
//! starts it again finds all that was acknowledged. So a program's panic hook has to know where it is: [`contained`].

use std::{cell::Cell, future::Future, panic::AssertUnwindSafe};

use futures::FutureExt as _;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread works at a request, whose panic is caught and answered with 500.
#[must_use]
pub fn contained() -> bool {
    INSIDE.get()
}

/// Puts the mark back that was there before, whichever way the work ends.
struct Inside(bool);

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(self.0);
    }
}

/// Runs the future; `Err` is what it panicked with.
pub(crate) async fn contain<F: Future>(future: F) -> std::thread::Result<F::Output> {
    let mut caught = std::pin::pin!(AssertUnwindSafe(future).catch_unwind());
    std::future::poll_fn(|cx| {
        let _inside = Inside(INSIDE.replace(true));
        caught.as_mut().poll(cx)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_is_run_inside_is_contained() {
        assert!(!contained());
        let seen = contain(async {
            let before = contained();
            tokio::task::yield_now().await;
            (before, contained())
        });
        assert_eq!(seen.await.unwrap(), (true, true));
        assert!(contain(async { panic!("on purpose") }).await.is_err());
        assert!(!contained());
    }
}
