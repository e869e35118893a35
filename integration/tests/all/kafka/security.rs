//! SASL and TLS, both ways: rskafka's connections and our own.

use vivace_integration::kafka::{Kafka, PASSWORD};
use vivace_runtime::config::Secret;

use super::*;

async fn works(config: &KafkaConfig) {
    let log = connect(config).await;
    log.append(P, record(1)).await.unwrap();
    assert_eq!(values(&read(&log, 1).await), [1]);
    let offsets = log.offsets("secure");
    offsets.commit(P, Offset(1)).await.unwrap();
    assert_eq!(offsets.committed(P).await.unwrap(), Some(Offset(1)));
}

#[test]
fn users_are_authenticated_by_plain_and_scram() {
    let Some(kafka) = Kafka::shared() else { return };
    block_on(async {
        for (mechanism, user) in [("PLAIN", "alice"), ("SCRAM-SHA-256", "bob"), ("SCRAM-SHA-512", "bob")] {
            let right = KafkaConfig {
                address: kafka.sasl_address(),
                sasl_mechanism: mechanism.to_owned(),
                sasl_username: user.to_owned(),
                sasl_password: Secret::new(PASSWORD),
                ..config(kafka, &format!("sasl-{mechanism}"))
            };
            works(&right).await;
            let wrong = KafkaConfig { sasl_password: Secret::new("wrong"), ..right };
            let told = try_connect(&wrong).await.err().unwrap();
            assert!(!told.is_retryable() && told.to_string().contains("see ingest.kafka.sasl_"), "{told}");
        }
    });
}

#[test]
fn a_mechanism_that_the_broker_does_not_offer_is_told_with_those_it_offers() {
    let Some(kafka) = Kafka::shared() else { return };
    block_on(async {
        let config = KafkaConfig {
            address: kafka.sasl_address(),
            sasl_mechanism: "OAUTHBEARER".to_owned(),
            sasl_oauthbearer_token: Secret::new("token"),
            ..config(kafka, "sasl-none")
        };
        let told = try_connect(&config).await.err().unwrap().to_string();
        assert!(told.contains("UnsupportedSaslMechanism") && told.contains("SCRAM-SHA-512"), "{told}");
    });
}

#[test]
fn connections_are_encrypted_and_the_broker_is_who_it_says() {
    let Some(kafka) = Kafka::shared() else { return };
    block_on(async {
        let right = KafkaConfig {
            address: kafka.tls_address(),
            tls_enabled: true,
            tls_ca_path: kafka.certificate().to_str().unwrap().to_owned(),
            ..config(kafka, "tls")
        };
        works(&right).await;
        // The name is checked: the certificate is for the address and for localhost.
        works(&KafkaConfig { tls_server_name: "localhost".to_owned(), topic: "tls-named".to_owned(), ..right.clone() })
            .await;
        let named = KafkaConfig { tls_server_name: "elsewhere".to_owned(), ..right };
        let told = tokio::time::timeout(Duration::from_secs(3), try_connect(&named)).await;
        assert!(told.is_err() || told.unwrap().is_err(), "a broker with another name is not trusted");
    });
}
