//! Lists paths in the form that the kernel reads back.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{DynObjectStore, ObjectMeta, ObjectStore, Result};

use super::forward::forward;

/// Lists `%` as `%25`. The kernel's default engine (0.30) makes a URL of each listed location without encoding it, and
/// decodes the URL before it reads the file: without this layer it would look for `a%20b` as `a b`.
#[derive(Debug)]
pub(super) struct EncodedListing {
    pub(super) inner: Arc<DynObjectStore>,
}

forward!(Display for EncodedListing);

fn encode(listed: Result<ObjectMeta>) -> Result<ObjectMeta> {
    let mut meta = listed?;
    if meta.location.as_ref().contains('%') {
        meta.location = Path::parse(meta.location.as_ref().replace('%', "%25"))?;
    }
    Ok(meta)
}

impl ObjectStore for EncodedListing {
    forward!(inner: put_opts, put_multipart_opts, get_opts, delete_stream, list_with_delimiter, copy_opts);

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix).map(encode).boxed()
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset).map(encode).boxed()
    }
}
