use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;

use super::*;

fn engines() -> Vec<Engine> {
    let mut engines = vec![Engine::blocking(4).unwrap()];
    for (name, engine) in [("io_uring", Engine::start(4)), ("aio", Engine::local(4))] {
        match engine {
            Ok(engine) if engine.name() == name => engines.push(engine),
            _ => {
                assert_ne!(std::env::var("MIGSHARE_REQUIRE").as_deref(), Ok("all"), "no {name}");
                println!("SKIP: {name} part");
            }
        }
    }
    engines
}

fn read(engine: &Engine, file: &Arc<File>, offset: u64, len: usize) -> (io::Result<usize>, Buffer) {
    let (tx, rx) = mpsc::channel();
    let done: Done = Box::new(move |result, buffer| tx.send((result, buffer)).unwrap());
    engine.submit(Job::one(Arc::clone(file), offset, Buffer::new(len), done));
    rx.recv_timeout(Duration::from_secs(30)).unwrap()
}

#[test]
fn reads_are_whole_up_to_the_end_of_the_file() {
    let mut file = tempfile::tempfile().unwrap();
    let content: Vec<u8> = (0..100_000u32).map(|i| (i / 7) as u8).collect();
    file.write_all(&content).unwrap();
    let file = Arc::new(file);
    for engine in engines() {
        for (offset, len) in [(0, 4096), (99_000, 4096), (4096, 65536), (100_000, 512), (200_000, 512)] {
            let (result, buffer) = read(&engine, &file, offset, len);
            let want =
                &content[(offset as usize).min(content.len())..(offset as usize + len).min(content.len())];
            assert_eq!(result.unwrap(), want.len(), "{} at {offset}", engine.name());
            assert_eq!(&buffer[..want.len()], want);
        }
    }
}

#[test]
fn many_reads_at_once_all_come_back() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![3; 1 << 20]).unwrap();
    let file = Arc::new(file);
    for engine in engines() {
        let (tx, rx) = mpsc::channel();
        for i in 0..3000u64 {
            let tx = tx.clone();
            let done: Done = Box::new(move |result, _| tx.send(result.unwrap()).unwrap());
            engine.submit(Job::one(Arc::clone(&file), i % 200 * 4096, Buffer::new(4096), done));
        }
        for _ in 0..3000 {
            assert_eq!(rx.recv_timeout(Duration::from_secs(30)).unwrap(), 4096);
        }
    }
}

#[test]
fn ranges_of_one_job_come_one_after_another_in_its_buffer() {
    let mut file = tempfile::tempfile().unwrap();
    let content: Vec<u8> = (0..100_000u32).map(|i| (i / 7) as u8).collect();
    file.write_all(&content).unwrap();
    let file = Arc::new(file);
    for engine in engines() {
        let (tx, rx) = mpsc::channel();
        let ranges: Vec<Range> =
            [(50_000, 3000), (0, 500), (99_000, 2000)].map(|(offset, len)| Range { offset, len }).into();
        let done: Done = Box::new(move |result, buffer| tx.send((result, buffer)).unwrap());
        engine.submit(Job { file: Arc::clone(&file), ranges, buffer: Buffer::new(5500), done });
        let (result, buffer) = rx.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(result.unwrap(), 4500, "the last range ends with the file");
        assert_eq!(buffer[..3000], content[50_000..53_000]);
        assert_eq!(buffer[3000..3500], content[..500]);
        assert_eq!(buffer[3500..4500], content[99_000..]);
    }
}

#[test]
fn a_failing_file_gives_its_error() {
    let file = Arc::new(File::open("/").unwrap());
    for engine in engines() {
        assert_eq!(read(&engine, &file, 0, 512).0.unwrap_err().raw_os_error(), Some(libc::EISDIR));
    }
}

/// The kernel writes the eventfd's counter into the engine's memory: an engine that gave it back early corrupts the heap.
#[test]
fn an_engine_that_is_dropped_while_busy_leaves_the_heap_whole() {
    let file = Arc::new(File::open("/").unwrap());
    for _ in 0..300 {
        let Ok(uring) = uring::Uring::start() else { return };
        let shared = uring.ended();
        read(&Engine::Uring(Arc::new(uring)), &file, 0, 512).0.unwrap_err();
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while shared.upgrade().is_some() {
            assert!(std::time::Instant::now() < deadline, "the engine's thread does not end");
            std::hint::black_box(vec![Box::new(7u64); 8]);
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_ring_that_fails_is_replaced_by_threads_and_no_read_is_lost() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![3; 1 << 20]).unwrap();
    let file = Arc::new(file);
    let Ok(uring) = uring::Uring::start() else { return };
    uring.lose_the_ring();
    let engine = Engine::Uring(Arc::new(uring));
    let (tx, rx) = mpsc::channel();
    for i in 0..3000u64 {
        let tx = tx.clone();
        let done: Done = Box::new(move |result, buffer| tx.send((result.unwrap(), buffer[4095])).unwrap());
        engine.submit(Job::one(Arc::clone(&file), i % 200 * 4096, Buffer::new(4096), done));
    }
    for _ in 0..3000 {
        assert_eq!(rx.recv_timeout(Duration::from_secs(30)).unwrap(), (4096, 3));
    }
    assert_eq!(engine.name(), "threads");
}

#[test]
fn a_panicking_answer_does_not_end_the_engine() {
    let file = Arc::new(tempfile::tempfile().unwrap());
    for engine in engines() {
        let done: Done = Box::new(|_, _| panic!("answer"));
        engine.submit(Job::one(Arc::clone(&file), 0, Buffer::new(512), done));
        assert_eq!(read(&engine, &file, 0, 512).0.unwrap(), 0);
    }
}

/// What Linux AIO does not do whole is done by the ring: the end of a file, several ranges, files that refuse to be read at once.
#[test]
fn past_the_page_cache_the_end_of_a_file_is_read_too() {
    let mut place = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
    place.write_all(&vec![9; 10_000]).unwrap();
    place.as_file().sync_all().unwrap();
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECT;
    let Ok(file) = rustix::fs::open(place.path(), flags, rustix::fs::Mode::empty()) else { return };
    let file = Arc::new(File::from(file));
    for engine in engines() {
        for (offset, len, want) in [(0, 8192, 8192), (8192, 4096, 1808), (12288, 4096, 0)] {
            let (result, buffer) = read(&engine, &file, offset, len);
            assert_eq!(result.unwrap(), want, "{} at {offset}", engine.name());
            assert!(buffer[..want].iter().all(|b| *b == 9));
        }
    }
}

#[test]
fn large_buffers_used_again_and_again_come_from_the_same_memory() {
    let places = |n: usize| -> Vec<usize> {
        let buffers: Vec<Buffer> = (0..n).map(|_| Buffer::new(1 << 20)).collect();
        buffers.iter().map(|b| b.as_ptr() as usize).collect()
    };
    // More than there are huge pages for: the rest is ordinary memory, and no two buffers overlap.
    let mut many = places(100);
    many.sort_unstable();
    assert!(many.windows(2).all(|w| w[1] - w[0] >= 1 << 20));
    assert!(places(8).iter().all(|place| many.contains(place)));
}

#[test]
fn buffers_are_aligned_whatever_their_length() {
    for len in [1, 4096, 5000, 33_000, 64 << 10, 1 << 20, 2 << 20, 3 << 20] {
        let buffer = Buffer::new(len);
        assert_eq!((buffer.len(), buffer.as_ptr() as usize % 4096), (len, 0));
    }
}
