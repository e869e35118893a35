use super::*;
use crate::commit::{Commit, CommitName};

/// What every store has to do alike.
async fn contract(backend: &Backend) {
    let key = BlockKey::new("te-nant_1.(x)*'!", Uuid::from_u128(7));
    let place = Place::Block(&key, DATA);
    assert!(backend.get(place).await.unwrap_err().is_not_found());
    let mut upload = backend.upload(place).await.unwrap();
    upload.write(Bytes::from_static(b"01234")).await.unwrap();
    upload.write(Bytes::from_static(b"56789")).await.unwrap();
    assert_eq!(upload.finish().await.unwrap(), 10);
    assert_eq!(backend.get_range(place, 3..6).await.unwrap(), b"345".as_slice());
    assert_eq!(backend.get_ranges(place, &[0..1, 8..10]).await.unwrap(), [b"0".as_slice(), b"89"]);
    assert_eq!(backend.head(place).await.unwrap().size, 10);

    let commit = Place::Root("commit.json");
    assert!(backend.create(commit, Bytes::from_static(b"a")).await.unwrap());
    assert!(!backend.create(commit, Bytes::from_static(b"b")).await.unwrap());
    assert_eq!(backend.get(commit).await.unwrap(), b"a".as_slice());
    assert_eq!(backend.list_root().await.unwrap(), ["commit.json"]);
    assert_eq!(backend.list_tenants().await.unwrap(), [&*key.tenant]);

    let listed = backend.list_blocks(&key.tenant).await.unwrap();
    assert_eq!((listed.live.len(), listed.incomplete.len()), (0, 1));
    let text =
        include_str!("../../tests/fixtures/vparquet5/single-tenant/ecbeb5d1-3e1a-42cb-8100-087b5302bd41/meta.json");
    let mut meta = BlockMeta::from_json(text.as_bytes()).unwrap();
    (meta.tenant_id, meta.block_id) = (key.tenant.to_string(), key.block);
    backend.put_no_compact(&key).await.unwrap();
    backend.put_meta(&meta).await.unwrap();
    assert_eq!(backend.read_meta(&key).await.unwrap(), meta);
    let listed = backend.list_blocks(&key.tenant).await.unwrap();
    assert_eq!((listed.live, listed.no_compact.len()), (vec![key.block], 1));

    let index = TenantIndex { meta: vec![meta.clone()], ..TenantIndex::default() };
    backend.put_tenant_index(&key.tenant, &index).await.unwrap();
    assert_eq!(backend.read_tenant_index(&key.tenant).await.unwrap(), index);
    backend.delete(Place::Tenant(&key.tenant, INDEX_PROTO)).await.unwrap();
    assert_eq!(backend.read_tenant_index(&key.tenant).await.unwrap(), index);
    backend.put_tenant_index(&key.tenant, &TenantIndex::default()).await.unwrap();
    assert!(backend.read_tenant_index(&key.tenant).await.unwrap_err().is_not_found());

    for _again in 0..2 {
        backend.mark_compacted(&key).await.unwrap();
        assert!(backend.read_meta(&key).await.unwrap_err().is_not_found());
        assert_eq!(backend.read_compacted_meta(&key).await.unwrap().meta, meta);
    }
    assert_eq!(backend.list_blocks(&key.tenant).await.unwrap().compacted.len(), 1);
    backend.delete_block(&key).await.unwrap();
    assert_eq!(backend.list_blocks(&key.tenant).await.unwrap(), BlockListing::default());
    assert!(backend.mark_compacted(&key).await.unwrap_err().is_not_found());
}

async fn sweep_contract(backend: &Backend) {
    let far = Timestamp(u64::MAX);
    for block in [1, 2, 3] {
        let key = BlockKey::new("t", Uuid::from_u128(block));
        backend.put(Place::Block(&key, DATA), Bytes::from_static(b"half")).await.unwrap();
    }
    let kept = Uuid::from_u128(2);
    backend.put(Place::Block(&BlockKey::new("t", Uuid::from_u128(3)), META), Bytes::from_static(b"{}")).await.unwrap();
    assert_eq!(backend.sweep("t", Timestamp(0), |_| false).await.unwrap(), 0, "all are younger");
    assert_eq!(backend.sweep("t", far, |block| block == kept).await.unwrap(), 1);
    let listed = backend.list_blocks("t").await.unwrap();
    assert_eq!((listed.live.len(), listed.incomplete[0].0), (1, kept));
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    contract(&Backend::memory()).await;
    sweep_contract(&Backend::memory()).await;
}

#[tokio::test]
async fn local_disk_keeps_the_contract() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    contract(&Backend::local(first.path()).unwrap()).await;
    sweep_contract(&Backend::local(second.path()).unwrap()).await;
}

#[tokio::test]
async fn a_prefix_is_part_of_every_path_and_of_no_name() {
    let store = Arc::new(InMemory::new());
    contract(&Backend::over(store.clone(), "some/prefix").unwrap()).await;
    let all: Vec<_> = store.list(None).try_collect().await.unwrap();
    assert!(all.iter().all(|object| object.location.as_ref().starts_with("some/prefix/")));
}

#[tokio::test]
async fn files_never_renamed_are_swept_and_names_stay_in_their_folder() {
    let folder = tempfile::tempdir().unwrap();
    let backend = Backend::local(folder.path()).unwrap();
    let key = BlockKey::new("t", Uuid::from_u128(1));
    backend.put(Place::Block(&key, META), Bytes::from_static(b"{}")).await.unwrap();
    let staged = folder.path().join("t").join(key.block.to_string()).join("data.parquet#12");
    std::fs::write(&staged, b"half").unwrap();
    backend.sweep("t", Timestamp(u64::MAX), |_| false).await.unwrap();
    assert!(!staged.exists());
    assert!(backend.head(Place::Block(&key, META)).await.is_ok());
    for tenant in ["", "a/b", ".."] {
        assert!(matches!(backend.get(Place::Tenant(tenant, "x")).await, Err(Error::Name(_))), "{tenant:?}");
    }
}

#[tokio::test]
async fn an_interrupted_change_of_state_counts_as_done_and_is_completed() {
    let backend = Backend::memory();
    let key = BlockKey::new("t", Uuid::from_u128(1));
    backend.put(Place::Block(&key, META), Bytes::from_static(b"{}")).await.unwrap();
    backend.put(Place::Block(&key, META_COMPACTED), Bytes::from_static(b"{}")).await.unwrap();
    let listed = backend.list_blocks("t").await.unwrap();
    assert_eq!((listed.live.len(), listed.compacted.len(), listed.half_compacted.len()), (0, 1, 1));
    backend.sweep("t", Timestamp(0), |_| false).await.unwrap();
    assert!(backend.list_blocks("t").await.unwrap().half_compacted.is_empty());
}

#[tokio::test]
async fn a_committed_block_without_metadata_is_completed_and_not_swept() {
    let backend = Backend::memory();
    let text =
        include_str!("../../tests/fixtures/vparquet5/single-tenant/ecbeb5d1-3e1a-42cb-8100-087b5302bd41/meta.json");
    let mut meta = BlockMeta::from_json(text.as_bytes()).unwrap();
    meta.tenant_id = "t".into();
    let name = CommitName { log_id: Uuid::nil().to_string(), partition: 0, first: 5 };
    let mut commit = Commit::new(name.clone(), 9, Uuid::from_u128(1));
    commit.blocks.push(meta.clone());
    let (committed, other) = (BlockKey::new("t", meta.block_id), BlockKey::new("t", Uuid::from_u128(2)));
    for key in [&committed, &other] {
        backend.put(Place::Block(key, DATA), Bytes::from_static(b"data")).await.unwrap();
    }
    assert_eq!(backend.chain_start(&name).await.unwrap(), None);
    assert_eq!(backend.begin_chain(&name).await.unwrap(), 5);
    assert_eq!(backend.begin_chain(&CommitName { first: 9, ..name.clone() }).await.unwrap(), 5);
    assert!(backend.create_commit(&commit).await.unwrap());
    let mut later = commit.clone();
    later.end = 20;
    assert!(!backend.create_commit(&later).await.unwrap());
    assert_eq!(backend.read_commit(&name).await.unwrap(), Some(commit));
    assert_eq!(backend.read_commit(&CommitName { first: 9, ..name.clone() }).await.unwrap(), None);
    assert_eq!(backend.list_commits().await.unwrap().into_keys().collect::<Vec<_>>(), [name]);
    assert_eq!(backend.sweep("t", Timestamp(u64::MAX), |_| false).await.unwrap(), 1);
    assert_eq!(backend.read_meta(&committed).await.unwrap(), meta);
    assert_eq!(backend.block_state(&other).await.unwrap(), BlockState::Gone);
    backend.mark_compacted(&committed).await.unwrap();
    assert_eq!(backend.restore_meta(&meta).await.unwrap(), BlockState::Compacted);
    assert!(backend.read_meta(&committed).await.unwrap_err().is_not_found(), "it is not brought back to life");
}
