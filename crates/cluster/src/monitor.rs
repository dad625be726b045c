//! stub
use crate::{error::StartError, handle::Handle, settings::Settings};
/// Starts monitors.
#[derive(Debug)]
pub struct Monitor;
impl Monitor {
    /// Starts.
    /// # Errors
    /// none
    pub fn start(settings: Settings) -> Result<Handle, StartError> { let _ = settings; Err(StartError::Thread(std::io::Error::other("not built"))) }
}
