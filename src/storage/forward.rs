//! The macro that every object-store decorator uses for the methods that it does not change.

/// Implements methods of [`object_store::ObjectStore`] by calling them on the store in a field:
/// `forward!(inner: list, copy_opts);`. `forward!(Display for Type);` shows a decorator as the store in its field
/// `inner`. `forward!(send: …)` passes asynchronous calls to a method `send` of the decorator, as functions of a store, which it can
/// repeat.
///
/// Asynchronous methods return the future of the wrapped store without another allocation. They are written out as
/// `#[async_trait]` writes them, because that attribute does not look into macros.
///
/// `get_ranges` and `rename_opts` are not forwarded: their default implementations call other methods of the decorator.
macro_rules! forward {
    (Display for $decorator:ty) => {
        impl std::fmt::Display for $decorator {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&self.inner, f)
            }
        }
    };
    ($store:ident: $($method:ident),+) => { $(forward!(@$method $store);)+ };
    (@put_opts $store:ident) => {
        forward!(@async $store put_opts ['p location: &'p object_store::path::Path]
            [payload: object_store::PutPayload, options: object_store::PutOptions] -> object_store::PutResult);
    };
    (@put_multipart_opts $store:ident) => {
        forward!(@async $store put_multipart_opts ['p location: &'p object_store::path::Path]
            [options: object_store::PutMultipartOptions] -> Box<dyn object_store::MultipartUpload>);
    };
    (@get_opts $store:ident) => {
        forward!(@async $store get_opts ['p location: &'p object_store::path::Path]
            [options: object_store::GetOptions] -> object_store::GetResult);
    };
    (@list_with_delimiter $store:ident) => {
        forward!(@async $store list_with_delimiter ['p prefix: Option<&'p object_store::path::Path>]
            [] -> object_store::ListResult);
    };
    (@copy_opts $store:ident) => {
        forward!(@async $store copy_opts
            ['p from: &'p object_store::path::Path, 'q to: &'q object_store::path::Path]
            [options: object_store::CopyOptions] -> ());
    };
    (@delete_stream $store:ident) => {
        forward!(@stream $store delete_stream
            (locations: futures::stream::BoxStream<'static, object_store::Result<object_store::path::Path>>)
            -> object_store::path::Path);
    };
    (@list $store:ident) => {
        forward!(@stream $store list (prefix: Option<&object_store::path::Path>) -> object_store::ObjectMeta);
    };
    (@list_with_offset $store:ident) => {
        forward!(@stream $store list_with_offset
            (prefix: Option<&object_store::path::Path>, offset: &object_store::path::Path)
            -> object_store::ObjectMeta);
    };
    (@async $store:ident $method:ident [$($life:lifetime $path:ident: $borrowed:ty),*]
        [$($argument:ident: $owned:ty),*] -> $output:ty) => {
        fn $method<'store, $($life,)* 'future>(
            &'store self,
            $($path: $borrowed,)*
            $($argument: $owned,)*
        ) -> futures::future::BoxFuture<'future, object_store::Result<$output>>
        where
            Self: 'future,
            'store: 'future,
            $($life: 'future,)*
        {
            forward!(@call $store self $method [$($path)*] [$($argument)*])
        }
    };
    (@call send $this:ident $method:ident [$($path:ident)*] [$($argument:ident)*]) => {
        Box::pin($this.send(move |store| {
            $(let $argument = $argument.clone();)*
            async move { store.$method($($path,)* $($argument),*).await }
        }))
    };
    (@call $store:ident $this:ident $method:ident [$($path:ident)*] [$($argument:ident)*]) => {
        (*$this.$store).$method($($path,)* $($argument),*)
    };
    (@stream $store:ident $method:ident ($($argument:ident: $type:ty),*) -> $item:ty) => {
        fn $method(
            &self,
            $($argument: $type),*
        ) -> futures::stream::BoxStream<'static, object_store::Result<$item>> {
            (*self.$store).$method($($argument),*)
        }
    };
}
pub(super) use forward;
