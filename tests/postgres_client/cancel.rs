//! Cancelling, in the clear and through TLS.

use waltide::postgres::SqlState;
use waltide_stack::{Version, eventually};

use crate::guarded::guarded;
use crate::{PATIENCE, database, open, open_replication, value, within};

#[tokio::test]
async fn a_running_query_is_cancelled_and_the_connection_stays() {
    let db = database(Version::NEWEST, "cancel");
    let [server, _] = guarded();
    let encrypted = server.url("scram_user", &server.verified());
    for url in [db.url(), encrypted] {
        let mut connection = open(&url).await;
        let token = connection.cancel_token().unwrap();
        let cancel = async {
            // Whether the server has begun to sleep yet cannot be seen from here, and an early
            // request cancels nothing: ask until it does.
            loop {
                token.cancel().await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let error = tokio::select! {
            slept = within(connection.simple_query("SELECT pg_sleep(600)")) => slept.unwrap_err(),
            () = cancel => unreachable!("it never ends"),
        };
        assert_eq!(error.sqlstate(), Some(SqlState::QUERY_CANCELED), "{error}");
        // A request that is still on its way may hit this one.
        while connection.simple_query("SELECT 1").await.is_err() {}
        assert_eq!(value(&mut connection, "SELECT 1").await, "1");
    }
}

#[tokio::test]
async fn making_a_slot_that_waits_for_others_is_cancelled_and_leaves_none() {
    for version in [Version::V14, Version::NEWEST] {
        let db = database(version, "cancelled slot");
        let holder = db.session();
        holder.execute("CREATE TABLE t (); BEGIN; INSERT INTO t DEFAULT VALUES");
        let mut connection = open_replication(&db.url()).await;
        let token = connection.cancel_token().unwrap();
        let name = db.prefix().to_owned();
        let url = db.url();
        let making = tokio::spawn(async move {
            let slot =
                waltide::postgres::NewSlot { name: &name, temporary: false, failover: false };
            let result = connection.create_slot(&slot).await;
            (connection, result)
        });
        let pid = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'CREATE_REPLICATION_SLOT%'
                   AND wait_event_type = 'Lock' AND datname = current_database()";
        tokio::task::spawn_blocking(move || {
            let session = waltide_stack::Session::connect(&url);
            eventually("the slot's maker waits", PATIENCE, || session.query(pid).first().map(drop));
        })
        .await
        .unwrap();
        token.cancel().await.unwrap();
        let (mut connection, result) = within(making).await.unwrap();
        assert_eq!(result.unwrap_err().sqlstate(), Some(SqlState::QUERY_CANCELED));
        assert_eq!(within(connection.read_slot(db.prefix())).await.unwrap(), None);
        holder.execute("ROLLBACK");
    }
}
