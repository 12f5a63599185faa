use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;

use super::*;

fn engines() -> Vec<Engine> {
    let mut engines = vec![Engine::blocking(4).unwrap()];
    match uring::Uring::start() {
        Ok(uring) => engines.push(Engine::Uring(uring)),
        Err(error) => {
            assert_ne!(std::env::var("MIGSHARE_REQUIRE").as_deref(), Ok("all"), "no io_uring: {error}");
            println!("SKIP: io_uring half: {error}");
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
        read(&Engine::Uring(uring), &file, 0, 512).0.unwrap_err();
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while shared.upgrade().is_some() {
            assert!(std::time::Instant::now() < deadline, "the engine's thread does not end");
            std::hint::black_box(vec![Box::new(7u64); 8]);
            std::thread::yield_now();
        }
    }
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

#[test]
fn buffers_are_aligned_whatever_their_length() {
    for len in [1, 4096, 5000, 1 << 20, 3 << 20] {
        let buffer = Buffer::new(len);
        assert_eq!((buffer.len(), buffer.as_ptr() as usize % 4096), (len, 0));
    }
}
