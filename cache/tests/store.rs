//! Blobs, file digests, facts, and opening.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use harness_cache::{Cache, Digest, Error};
use tempfile::{TempDir, tempdir};

fn cache() -> (TempDir, Cache) {
    let folder = tempdir().unwrap();
    let cache = Cache::open(&folder.path().join("cache")).unwrap();
    (folder, cache)
}

/// Changes a file in place behind the store's back, keeping its length.
fn corrupt(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn bytes_come_back() {
    let (_folder, cache) = cache();
    let (digest, size) = cache.put_bytes(b"hello").unwrap();
    assert_eq!((digest, size), (Digest::of_bytes(b"hello"), 5));
    assert_eq!(cache.put_bytes(b"hello").unwrap().0, digest);
    assert_eq!(cache.read(&digest).unwrap().unwrap(), b"hello");
    let path = cache.blob(&digest).unwrap().unwrap();
    assert_eq!(path, cache.dir().join("blobs").join(&digest.to_string()[..2]).join(digest.to_string()));
    assert_eq!(cache.verified(&digest).unwrap(), Some(path.clone()));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o444);
    let absent = Digest::of_bytes(b"absent");
    assert_eq!(cache.blob(&absent).unwrap(), None);
    assert_eq!(cache.verified(&absent).unwrap(), None);
    assert_eq!(cache.read(&absent).unwrap(), None);
    assert_eq!(fs::read_dir(cache.dir().join("tmp")).unwrap().count(), 0);
    assert_eq!(cache.notices(), [""; 0]);
}

#[test]
fn files_are_copied_or_taken() {
    let (folder, cache) = cache();
    let file = folder.path().join("file");
    fs::write(&file, b"content").unwrap();
    let (digest, size) = cache.put_file(&file).unwrap();
    assert_eq!((digest, size), (Digest::of_bytes(b"content"), 7));
    assert!(file.exists());
    // The store has its own copy: the file may change.
    fs::write(&file, b"changed").unwrap();
    assert_eq!(cache.read(&digest).unwrap().unwrap(), b"content");

    let (digest, _) = cache.take_file(&file).unwrap();
    assert_eq!(digest, Digest::of_bytes(b"changed"));
    assert!(!file.exists());
    assert_eq!(cache.read(&digest).unwrap().unwrap(), b"changed");
    fs::write(&file, b"changed").unwrap();
    assert_eq!(cache.take_file(&file).unwrap().0, digest);
    assert!(!file.exists());
}

#[test]
fn a_file_with_two_names_is_not_taken_by_renaming() {
    let (folder, cache) = cache();
    let (file, twin, link) = (folder.path().join("file"), folder.path().join("twin"), folder.path().join("link"));
    fs::write(&file, b"content").unwrap();
    fs::hard_link(&file, &twin).unwrap();
    symlink(&twin, &link).unwrap();
    for path in [&file, &link] {
        let (digest, _) = cache.take_file(path).unwrap();
        assert!(fs::symlink_metadata(path).is_err());
        fs::write(&twin, b"CONTENT").unwrap();
        assert!(cache.read(&digest).unwrap().is_some());
    }
}

#[test]
fn a_corrupt_blob_is_never_served() {
    let (_folder, cache) = cache();
    for read in [true, false] {
        let (digest, _) = cache.put_bytes(b"precious").unwrap();
        let path = cache.verified(&digest).unwrap().unwrap();
        corrupt(&path);
        let gone =
            if read { cache.read(&digest).unwrap().is_none() } else { cache.verified(&digest).unwrap().is_none() };
        assert!(gone);
        assert!(!path.exists());
        let notices = cache.notices();
        assert!(notices.len() == 1 && notices[0].contains(&digest.to_string()), "{notices:?}");
        // Nothing is lost, and the same content can be stored again.
        cache.put_bytes(b"precious").unwrap();
        assert_eq!(cache.read(&digest).unwrap().unwrap(), b"precious");
    }
    assert_eq!(cache.stat().unwrap().quarantined, 2);
}

#[test]
fn storing_heals_a_corrupt_blob() {
    let (_folder, cache) = cache();
    let (digest, _) = cache.put_bytes(b"precious").unwrap();
    corrupt(&cache.blob(&digest).unwrap().unwrap());
    cache.put_bytes(b"precious").unwrap();
    assert_eq!(cache.read(&digest).unwrap().unwrap(), b"precious");
}

#[test]
fn a_settled_file_is_hashed_once_and_any_change_is_seen() {
    let (folder, cache) = cache();
    let file = folder.path().join("file");
    fs::write(&file, b"one").unwrap();
    // Just written: looked at again each time, so a change of the same size within the clock's grain is seen.
    assert_eq!(cache.file_digest(&file).unwrap(), Digest::of_bytes(b"one"));
    fs::write(&file, b"two").unwrap();
    assert_eq!(cache.file_digest(&file).unwrap(), Digest::of_bytes(b"two"));
    // An old modification time alone is not trusted either: it can be set by hand.
    let old = SystemTime::now() - Duration::from_secs(1000);
    File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
    assert_eq!(cache.file_digest(&file).unwrap(), Digest::of_bytes(b"two"));
    fs::write(&file, b"six").unwrap();
    File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
    assert_eq!(cache.file_digest(&file).unwrap(), Digest::of_bytes(b"six"));
}

#[test]
fn many_files_in_their_order() {
    let (folder, cache) = cache();
    let paths: Vec<_> = (0..50).map(|index| folder.path().join(index.to_string())).collect();
    for (index, path) in paths.iter().enumerate() {
        fs::write(path, vec![index as u8; index * 100]).unwrap();
    }
    let expected: Vec<_> = paths.iter().map(|path| Digest::of_file(path).unwrap()).collect();
    for threads in [0, 1, 3] {
        assert_eq!(cache.file_digests(&paths, threads).unwrap(), expected);
    }
    fs::remove_file(&paths[7]).unwrap();
    let error = cache.file_digests(&paths, 3).unwrap_err().to_string();
    assert!(error.contains(paths[7].to_str().unwrap()), "{error}");
}

#[test]
fn what_is_no_file_is_refused() {
    let (folder, cache) = cache();
    for result in [cache.file_digest(folder.path()).map(|_| ()), cache.put_file(folder.path()).map(|_| ())] {
        assert!(matches!(result, Err(Error::NotAFile { .. })), "{result:?}");
    }
}

#[test]
fn facts_survive_reopening() {
    let (folder, cache) = cache();
    cache.remember(b"tree", b"digest").unwrap();
    assert_eq!(cache.recall(b"tree").unwrap().unwrap(), b"digest");
    let dir = cache.dir().to_owned();
    // A second opening cannot have the index, and works without.
    let second = Cache::open(&dir).unwrap();
    assert_eq!(second.recall(b"tree").unwrap(), None);
    second.remember(b"own", b"fact").unwrap();
    assert_eq!(second.recall(b"own").unwrap().unwrap(), b"fact");
    assert!(!second.stat().unwrap().has_index);
    drop((cache, second));
    let cache = Cache::open(&folder.path().join("cache")).unwrap();
    assert!(cache.stat().unwrap().has_index);
    assert_eq!(cache.recall(b"tree").unwrap().unwrap(), b"digest");
    assert_eq!(cache.notices(), [""; 0]);
}

#[test]
fn a_damaged_index_is_moved_aside() {
    let (_folder, cache) = cache();
    cache.remember(b"tree", b"digest").unwrap();
    let (digest, _) = cache.put_bytes(b"kept").unwrap();
    let dir = cache.dir().to_owned();
    drop(cache);
    for file in ["conf", "db"] {
        let path = dir.join("index.sled").join(file);
        let length = fs::metadata(&path).unwrap().len();
        fs::write(&path, vec![0x5a; length as usize]).unwrap();
        let cache = Cache::open(&dir).unwrap();
        // Whatever sled makes of it, there is no wrong answer and a working index afterwards.
        assert_eq!(cache.recall(b"tree").unwrap(), None, "{file}");
        assert_eq!(cache.read(&digest).unwrap().unwrap(), b"kept");
        cache.remember(b"tree", b"digest").unwrap();
        assert_eq!(cache.recall(b"tree").unwrap().unwrap(), b"digest");
        let notices = cache.notices();
        assert!(notices.len() == 1 && notices[0].contains("index"), "{file}: {notices:?}");
        drop(cache);
    }
    fs::remove_dir_all(dir.join("index.sled")).unwrap();
    fs::write(dir.join("index.sled"), b"not a folder").unwrap();
    let cache = Cache::open(&dir).unwrap();
    assert_eq!(cache.recall(b"tree").unwrap(), None);
    assert_eq!(cache.notices().len(), 1);
}

#[test]
fn a_file_in_the_folders_place() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"mine").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = Cache::open(&path).unwrap_err();
        assert!(matches!(&error, Error::NotADirectory { path } if *path == file), "{error:?}");
        assert!(error.to_string().contains("is a file"), "{error}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}

#[test]
fn a_folder_where_nothing_can_be_written() {
    // No mode keeps a superuser from writing, so this uses a place where the kernel lets nobody create anything.
    let error = Cache::open(Path::new("/proc/self/cache")).unwrap_err();
    assert!(error.to_string().contains("/proc/self/cache"), "{error}");

    let folder = tempdir().unwrap();
    let dir = folder.path().join("cache");
    drop(Cache::open(&dir).unwrap());
    fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o555)).unwrap();
    if File::create(dir.join("tmp/probe")).is_ok() {
        println!("modes do not bind this user: the rest is skipped");
        return;
    }
    let error = Cache::open(&dir).unwrap_err();
    assert!(matches!(error, Error::NotWritable { .. }), "{error:?}");
    fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn another_version_is_refused_by_name() {
    let (_folder, cache) = cache();
    fs::write(cache.dir().join("VERSION"), "harness-cache 99\n").unwrap();
    let error = Cache::open(cache.dir()).unwrap_err();
    assert!(matches!(error, Error::Version { .. }), "{error:?}");
    assert!(error.to_string().contains("harness-cache 99"), "{error}");
}

#[test]
fn work_folders_and_temporary_folders() {
    let (_folder, cache) = cache();
    let key = Digest::of_bytes(b"key");
    let work = cache.work_dir(&key).unwrap();
    fs::write(work.join("checkpoint"), b"half").unwrap();
    assert_eq!(cache.work_dir(&key).unwrap(), work);
    assert!(work.join("checkpoint").exists());
    cache.remove_work(&key).unwrap();
    cache.remove_work(&key).unwrap();
    assert!(!work.exists());
    let temporary = cache.temp_dir().unwrap();
    assert!(temporary.path().starts_with(cache.dir().join("tmp")));
}
