//! Memory of a mapped model, page by page: slices of the file laid over with pages of our own.
//!
//! A model that is larger than memory is mapped, and the kernel drops and reads its pages as it
//! likes. An [`Overlay`] takes slices of it out of the kernel's hands: it reads them straight from
//! the file (past the page cache) into anonymous pages and moves those over the mapping, at the
//! same addresses. llama.cpp notices nothing; what is not laid over is still the mapping of the
//! file, so **every address holds the file's bytes at all times**, and a wrong guess costs time,
//! never a wrong number.

pub use system::{Mapping, Overlay, Span, Staging, page_bytes};

#[cfg(target_os = "linux")]
mod system {
    use std::ffi::c_void;
    use std::fs::{self, File};
    use std::io;
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};
    use std::sync::{Arc, Mutex, PoisonError};

    use rustix::fs::{Advice, Mode, OFlags};
    use rustix::mm::{self, MapFlags, MremapFlags, ProtFlags};

    use crate::engine::llama::Model;

    /// Bytes of a page of memory.
    pub fn page_bytes() -> usize {
        rustix::param::page_size()
    }

    /// A part of a file in this process's memory.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Mapping {
        /// Where it begins.
        pub address: usize,
        /// How long it is.
        pub bytes: usize,
        /// Where it begins in its file.
        pub offset: u64,
        /// Which of the model's files it is.
        pub file: usize,
    }

    /// Whole pages of a mapped model.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Span {
        /// Where it begins; a multiple of [`page_bytes`].
        pub address: usize,
        /// How long it is; a multiple of [`page_bytes`].
        pub bytes: usize,
    }

    impl Span {
        /// The pages that lie wholly within a range of bytes.
        pub fn within(address: usize, bytes: usize) -> Self {
            let page = page_bytes();
            let start = address.next_multiple_of(page);
            let end = (address + bytes) / page * page;
            Self { address: start, bytes: end.saturating_sub(start) }
        }

        /// The pages that a range of bytes touches.
        pub fn around(address: usize, bytes: usize) -> Self {
            let page = page_bytes();
            let start = address / page * page;
            Self { address: start, bytes: (address + bytes).next_multiple_of(page) - start }
        }
    }

    /// Room where a slice is read before it is moved to its place. Nobody else has the same one.
    #[derive(Debug)]
    pub struct Staging {
        address: usize,
    }

    #[derive(Debug)]
    struct Source {
        /// Opened past the page cache where the file system can.
        direct: File,
        /// For mapping again.
        plain: File,
        is_direct: bool,
    }

    /// Slices of a mapped model, laid over with pages of our own.
    #[derive(Debug)]
    pub struct Overlay {
        mappings: Vec<Mapping>,
        sources: Vec<Source>,
        staging: Span,
        free: Mutex<Vec<Staging>>,
        room: usize,
        /// The mapping lives as long as the model.
        _model: Arc<Model>,
    }

    impl Overlay {
        /// Finds the model's files in this process's memory. `rooms` slices of at most `room_bytes`
        /// can be read at a time.
        pub fn open(
            model: &Arc<Model>,
            files: &[PathBuf],
            rooms: usize,
            room_bytes: usize,
        ) -> io::Result<Self> {
            let table = fs::read_to_string("/proc/self/maps")?;
            let identities: Vec<(u64, u64)> =
                files.iter().map(|file| identity(file)).collect::<io::Result<_>>()?;
            let mappings = parse(&table, &identities);
            let sources =
                files.iter().map(|file| Source::open(file)).collect::<io::Result<Vec<_>>>()?;
            let room = Span::around(0, room_bytes.max(1)).bytes;
            let bytes = room.checked_mul(rooms).ok_or(io::ErrorKind::InvalidInput)?;
            // SAFETY: a fresh mapping at an address of the kernel's choice; pages come when they
            // are touched.
            let address = unsafe {
                mm::mmap_anonymous(
                    std::ptr::null_mut(),
                    bytes,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::PRIVATE | MapFlags::NORESERVE,
                )?
            } as usize;
            let free =
                (0..rooms).map(|index| Staging { address: address + index * room }).collect();
            let staging = Span { address, bytes };
            let free = Mutex::new(free);
            Ok(Self { mappings, sources, staging, free, room, _model: Arc::clone(model) })
        }

        /// Where the model's files are mapped.
        pub fn mappings(&self) -> &[Mapping] {
            &self.mappings
        }

        /// Whether reads bypass the page cache.
        pub fn is_direct(&self) -> bool {
            self.sources.iter().all(|source| source.is_direct)
        }

        /// Room for one slice; None when all are taken.
        pub fn room(&self) -> Option<Staging> {
            self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()
        }

        /// Gives a slice that was loaded back to the mapping of the file. Its pages become those of
        /// a room for a slice of the same length, so that the kernel need not clear others. No
        /// computation may read the slice meanwhile (it would see zeros for a moment).
        pub fn give_back(&self, span: Span, reused: Option<&mut Staging>) -> io::Result<()> {
            let (mapping, offset) = self.place(span)?;
            if let Some(room) = reused
                && span.bytes <= self.room
            {
                // SAFETY: both ranges are ours: the source was laid over by `load`, the target is
                // the room that the caller owns. DONTUNMAP keeps the source's addresses reserved.
                unsafe { move_pages(span, room.address) }?;
            }
            let source = &self.sources[mapping.file];
            // SAFETY: the range lies within the model's mapping of this file, which is laid down
            // again as it was.
            unsafe {
                mm::mmap(
                    span.address as *mut c_void,
                    span.bytes,
                    ProtFlags::READ,
                    MapFlags::SHARED | MapFlags::FIXED,
                    &source.plain,
                    offset,
                )
            }?;
            Ok(())
        }

        /// Reads a slice of the file and lays it over its mapping. Safe beside any computation.
        pub fn load(&self, span: Span, room: &mut Staging) -> io::Result<()> {
            let (mapping, offset) = self.place(span)?;
            if span.bytes > self.room {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            // SAFETY: the room is mapped, `span.bytes` fit it, and it is borrowed mutably.
            let buffer =
                unsafe { std::slice::from_raw_parts_mut(room.address as *mut u8, span.bytes) };
            let source = &self.sources[mapping.file];
            source.read(buffer, offset)?;
            // SAFETY: the room is ours, the target lies within the model's mapping of the file and
            // gets the bytes that it had.
            unsafe { move_pages(Span { address: room.address, ..span }, span.address) }
        }

        /// A room that is needed no more. What memory it holds goes back to the system.
        pub fn leave(&self, room: Staging) {
            // SAFETY: the room is ours, and nothing in it is needed. One mapping again, whatever
            // pages were moved through it.
            let renewed = unsafe {
                mm::mmap_anonymous(
                    room.address as *mut c_void,
                    self.room,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED,
                )
            };
            if renewed.is_err() {
                return;
            }
            self.free.lock().unwrap_or_else(PoisonError::into_inner).push(room);
        }

        /// Keeps pages of the mapping in memory.
        pub fn lock(&self, span: Span) -> io::Result<()> {
            self.place(span)?;
            // SAFETY: the range lies within the model's mapping; locking changes no byte.
            Ok(unsafe { mm::mlock(span.address as *mut c_void, span.bytes) }?)
        }

        /// Tells the kernel to read nothing around pages that are touched.
        pub fn without_read_ahead(&self, span: Span) -> io::Result<()> {
            self.place(span)?;
            // SAFETY: the range lies within the model's mapping; this advice changes no byte.
            let advice = mm::Advice::Random;
            Ok(unsafe { mm::madvise(span.address as *mut c_void, span.bytes, advice) }?)
        }

        /// Unmaps pages of a span of which nothing is loaded; they come back from the file.
        pub fn unmap(&self, span: Span) -> io::Result<()> {
            self.place(span)?;
            // SAFETY: the range lies within the model's shared, read-only mapping: pages that are
            // unmapped come back from the file with the same bytes.
            let advice = mm::Advice::LinuxDontNeed;
            Ok(unsafe { mm::madvise(span.address as *mut c_void, span.bytes, advice) }?)
        }

        /// Takes what is not mapped of a span out of the page cache.
        pub fn uncache(&self, span: Span) -> io::Result<()> {
            let (mapping, offset) = self.place(span)?;
            let bytes = std::num::NonZeroU64::new(span.bytes as u64);
            let plain = &self.sources[mapping.file].plain;
            Ok(rustix::fs::fadvise(plain, offset, bytes, Advice::DontNeed)?)
        }

        /// The mapping that holds a span, and where the span begins in the file.
        fn place(&self, span: Span) -> io::Result<(&Mapping, u64)> {
            let page = page_bytes();
            let holds = |mapping: &&Mapping| {
                span.address >= mapping.address
                    && span.bytes <= mapping.bytes
                    && span.address - mapping.address <= mapping.bytes - span.bytes
            };
            let aligned = span.address.is_multiple_of(page) && span.bytes.is_multiple_of(page);
            let mapping = self.mappings.iter().find(holds).filter(|_| aligned && span.bytes > 0);
            let mapping = mapping.ok_or(io::ErrorKind::InvalidInput)?;
            Ok((mapping, mapping.offset + (span.address - mapping.address) as u64))
        }
    }

    impl Drop for Overlay {
        fn drop(&mut self) {
            // What is laid over the mapping holds the file's bytes and goes with the model.
            // SAFETY: rooms are handed out by reference to this overlay only while it lives.
            let _ = unsafe { mm::munmap(self.staging.address as *mut c_void, self.staging.bytes) };
        }
    }

    /// Moves pages of anonymous memory over other addresses of this process, leaving fresh ones.
    ///
    /// # Safety
    /// Both ranges are mapped, the source is private and anonymous, and nobody minds what the target
    /// held.
    #[expect(unsafe_code, reason = "moves memory")]
    unsafe fn move_pages(source: Span, target: usize) -> io::Result<()> {
        let flags = MremapFlags::MAYMOVE | MremapFlags::DONTUNMAP;
        let (from, to) = (source.address as *mut c_void, target as *mut c_void);
        // SAFETY: as the caller promises.
        unsafe { mm::mremap_fixed(from, source.bytes, source.bytes, flags, to) }?;
        Ok(())
    }

    impl Source {
        fn open(path: &Path) -> io::Result<Self> {
            let plain = File::open(path)?;
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECT;
            let (direct, is_direct) = match rustix::fs::open(path, flags, Mode::empty()) {
                Ok(direct) => (File::from(direct), true),
                Err(_) => (File::open(path)?, false),
            };
            Ok(Self { direct, plain, is_direct })
        }

        /// Reads to the end of the buffer, or of the file.
        fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            use std::os::unix::fs::FileExt;
            let length = self.plain.metadata()?.len();
            let wanted = length.saturating_sub(offset).min(buffer.len() as u64) as usize;
            let mut done = 0;
            while done < wanted {
                // Past the page cache, offsets must stay multiples of a block: a read that was
                // cut is repeated from the last whole page.
                let from = done / page_bytes() * page_bytes();
                match self.direct.read_at(&mut buffer[from..], offset + from as u64) {
                    Ok(count) if from + count > done => done = from + count,
                    Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            buffer[wanted..].fill(0);
            if !self.is_direct {
                let bytes = std::num::NonZeroU64::new(wanted as u64);
                let _ = rustix::fs::fadvise(&self.direct, offset, bytes, Advice::DontNeed);
            }
            Ok(())
        }
    }

    fn identity(path: &Path) -> io::Result<(u64, u64)> {
        let metadata = fs::metadata(path)?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// The lines of /proc/self/maps that map one of these files (device and inode) for reading.
    fn parse(table: &str, files: &[(u64, u64)]) -> Vec<Mapping> {
        table.lines().filter_map(|line| mapping(line, files)).collect()
    }

    /// A line such as `7f00-7f01 r--s 00000000 08:01 42   /path`.
    fn mapping(line: &str, files: &[(u64, u64)]) -> Option<Mapping> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let permissions = fields.next()?;
        let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
        let (major, minor) = fields.next()?.split_once(':')?;
        let inode = fields.next()?.parse::<u64>().ok()?;
        let number = |text: &str| u32::from_str_radix(text, 16).ok();
        let device = rustix::fs::makedev(number(major)?, number(minor)?);
        let file = files.iter().position(|file| *file == (device, inode))?;
        let address = usize::from_str_radix(start, 16).ok()?;
        let bytes = usize::from_str_radix(end, 16).ok()?.checked_sub(address)?;
        permissions.starts_with("r-").then_some(Mapping { address, bytes, offset, file })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn mappings_of_the_files_are_found_by_device_and_inode() {
            let table = "\
7f0000000000-7f0000100000 r--s 00002000 08:01 42         /models/my model.gguf
7f0000100000-7f0000101000 rw-p 00000000 00:00 0 
7f0000200000-7f0000280000 r--s 00000000 08:01 43         /models/other.gguf
";
            let device = rustix::fs::makedev(8, 1);
            let found = parse(table, &[(device, 7), (device, 42)]);
            let expected =
                Mapping { address: 0x7f00_0000_0000, bytes: 1 << 20, offset: 0x2000, file: 1 };
            assert_eq!(found, [expected]);
        }

        #[test]
        fn spans_are_rounded_to_pages() {
            let page = page_bytes();
            let (address, bytes) = (3 * page + 32, 2 * page);
            assert_eq!(Span::within(address, bytes), Span { address: 4 * page, bytes: page });
            assert_eq!(Span::around(address, bytes), Span { address: 3 * page, bytes: 3 * page });
            assert_eq!(Span::within(address, 8).bytes, 0);
            let whole = Span { address: page, bytes: page };
            assert_eq!((Span::within(page, page), Span::around(page, page)), (whole, whole));
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;
    use std::path::PathBuf;
    use std::sync::Arc;

    use crate::engine::llama::Model;

    /// Bytes of a page of memory, as far as rounding needs it.
    pub fn page_bytes() -> usize {
        16 << 10
    }

    /// A part of a file in this process's memory.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Mapping {
        /// Where it begins.
        pub address: usize,
        /// How long it is.
        pub bytes: usize,
        /// Where it begins in its file.
        pub offset: u64,
        /// Which of the model's files it is.
        pub file: usize,
    }

    /// Whole pages of a mapped model.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Span {
        /// Where it begins.
        pub address: usize,
        /// How long it is.
        pub bytes: usize,
    }

    impl Span {
        /// The pages that lie wholly within a range of bytes.
        pub fn within(address: usize, bytes: usize) -> Self {
            Self { address, bytes }
        }

        /// The pages that a range of bytes touches.
        pub fn around(address: usize, bytes: usize) -> Self {
            Self { address, bytes }
        }
    }

    /// Room where a slice is read; there is none on this system.
    #[derive(Debug)]
    pub enum Staging {}

    /// Slices of a mapped model, laid over with our own pages: only Linux can.
    #[derive(Debug)]
    pub enum Overlay {}

    impl Overlay {
        /// Refuses: moving pages over a mapping is Linux's.
        pub fn open(_: &Arc<Model>, _: &[PathBuf], _: usize, _: usize) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        /// Where the model's files are mapped.
        pub fn mappings(&self) -> &[Mapping] {
            match *self {}
        }

        /// Whether reads bypass the page cache.
        pub fn is_direct(&self) -> bool {
            match *self {}
        }

        /// Room for one slice.
        pub fn room(&self) -> Option<Staging> {
            match *self {}
        }

        /// Gives a slice back to the mapping of the file.
        pub fn give_back(&self, _: Span, _: Option<&mut Staging>) -> io::Result<()> {
            match *self {}
        }

        /// Reads a slice of the file and lays it over its mapping.
        pub fn load(&self, _: Span, _: &mut Staging) -> io::Result<()> {
            match *self {}
        }

        /// A room that is needed no more.
        pub fn leave(&self, _: Staging) {
            match *self {}
        }

        /// Keeps pages of the mapping in memory.
        pub fn lock(&self, _: Span) -> io::Result<()> {
            match *self {}
        }

        /// Tells the kernel to read nothing around pages that are touched.
        pub fn without_read_ahead(&self, _: Span) -> io::Result<()> {
            match *self {}
        }

        /// Unmaps pages of a span of which nothing is loaded.
        pub fn unmap(&self, _: Span) -> io::Result<()> {
            match *self {}
        }

        /// Takes what is not mapped of a span out of the page cache.
        pub fn uncache(&self, _: Span) -> io::Result<()> {
            match *self {}
        }
    }
}
