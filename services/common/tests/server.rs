//! Servers over real sockets.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream as StdStream,
    thread,
};

use shoal_common::{
    admin::{self, Admin},
    health::{self, Health, Unhealthy},
    server::{self, Limits},
    supervisor::Supervisor,
};
use shoal_core::Address;
use tokio::{runtime, sync::mpsc};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;

fn anywhere() -> Address {
    "127.0.0.1:0".parse().expect("an address")
}

fn metrics_of(address: &Address) -> String {
    let mut stream = StdStream::connect((address.host(), address.port())).expect("it listens");
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it is open");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("it answers");
    response
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_port_serves_metrics_and_health() {
    let health = Health::new(&["shoal.tracker.v1.TrackerService"]).await;
    let supervisor = Supervisor::new(health.clone());
    let shutdown = supervisor.ending().clone();
    let _stop = shutdown.clone().drop_guard();
    let admin = admin::start(&Admin::On(anywhere()), &supervisor, shutdown).await;
    let address = admin.expect("a port is free").expect("it is on");

    let early = health::check(&address).await;
    assert!(matches!(early, Err(Unhealthy::NotReady(_))), "{early:?}");
    health.ready().await;
    health::check(&address).await.expect("it is ready");
    health.close().await;
    let late = health::check(&address).await;
    assert!(matches!(late, Err(Unhealthy::NotReady(_))), "{late:?}");

    let metrics = metrics_of(&address);
    assert!(metrics.starts_with("HTTP/1.1 200 OK"), "{metrics}");
    let labels = "service=\"grpc.health.v1.Health\",method=\"Check\"";
    for metric in [
        format!("shoal_rpc_served_total{{{labels},code=\"Ok\"}} "),
        format!("shoal_rpc_served_seconds_count{{{labels}}} "),
    ] {
        assert!(metrics.lines().any(|line| line.starts_with(&metric)), "{metric} not in {metrics}");
    }
}

#[tokio::test]
async fn an_admin_port_that_is_off_is_not_bound() {
    let supervisor = Supervisor::new(Health::new(&[]).await);
    let admin = admin::start(&Admin::Off, &supervisor, CancellationToken::new()).await;
    assert_eq!(admin.expect("nothing is bound"), None);
}

/// As a peer does with its transfer connections.
#[tokio::test]
async fn connections_can_be_served_on_another_runtime_than_the_accepting_one() {
    let health = Health::new(&[]).await;
    health.ready().await;
    let routes = server::routes(&health);
    let (to_io_thread, connections) = mpsc::channel(1);
    let io_thread = thread::spawn(move || {
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let incoming = ReceiverStream::new(connections).map(|connection: server::Connection| {
            connection.adopt().expect("the runtime has room for it")
        });
        let never = CancellationToken::new();
        runtime.block_on(server::serve_incoming(incoming, routes, &Limits::default(), never));
    });
    let listener = server::bind(&anywhere()).await.expect("a port is free");
    let address = Address::from(listener.local_addr().expect("it is bound"));
    let accepting = tokio::spawn(async move {
        let mut accepted = std::pin::pin!(server::accept(listener, &Limits::default()));
        while let Some(connection) = accepted.next().await {
            to_io_thread.send(connection).await.expect("the I/O thread runs");
        }
    });
    for _ in 0..3 {
        health::check(&address).await.expect("the I/O thread answers");
    }
    accepting.abort();
    tokio::task::spawn_blocking(|| io_thread.join())
        .await
        .expect("it joins")
        .expect("the I/O thread ends without a panic after the last connection");
}
