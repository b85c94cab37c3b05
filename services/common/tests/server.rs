//! Servers over real sockets.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream as StdStream,
    thread,
};

use shoal_common::{
    Address,
    admin::{self, Admin},
    health::{self, Health, Unhealthy},
    server::{self, Limits},
    supervisor::Supervisor,
};
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
async fn an_admin_port_that_is_off_is_nowhere() {
    let supervisor = Supervisor::new(Health::new(&[]).await);
    let admin = admin::start(&Admin::Off, &supervisor, CancellationToken::new()).await;
    assert_eq!(admin.expect("nothing is bound"), None);
}

/// As a peer does it with its bulk connections.
#[tokio::test]
async fn connections_are_served_on_runtimes_other_than_the_one_that_accepts() {
    let health = Health::new(&[]).await;
    health.ready().await;
    let routes = server::routes(&health);
    let (to_lane, connections) = mpsc::channel(1);
    let lane = thread::spawn(move || {
        let lane = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let incoming = ReceiverStream::new(connections).map(|connection: server::Connection| {
            connection.adopt().expect("the runtime has room for it")
        });
        let never = CancellationToken::new();
        lane.block_on(server::serve_incoming(incoming, routes, &Limits::default(), never));
    });
    let listener = server::bind(&anywhere()).await.expect("a port is free");
    let address = Address::from(listener.local_addr().expect("it is bound"));
    let accepting = tokio::spawn(async move {
        let mut accepted = std::pin::pin!(server::accept(listener, &Limits::default()));
        while let Some(connection) = accepted.next().await {
            to_lane.send(connection).await.expect("the lane lives");
        }
    });
    for _ in 0..3 {
        health::check(&address).await.expect("the lane answers");
    }
    accepting.abort();
    tokio::task::spawn_blocking(|| lane.join())
        .await
        .expect("it joins")
        .expect("the lane ends well when no more connections come");
}
