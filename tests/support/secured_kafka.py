"""A broker as a managed Kafka is: TLS, logins of all kinds, and nothing permitted that no ACL permits."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from pathlib import Path

from banditmesh.local import java
from banditmesh.local.authority import LOCAL_NAMES, Authority
from banditmesh.local.kafka import Kafka, formatted
from banditmesh.runtime.addresses import HostPort, KafkaAccess, KafkaAddress, SaslMechanism

PASSWORD = "secret"
USERS = ("mesh", "narrow", "tracker", "joiner", "learner", "reader")
"""Known to PLAIN and SCRAM-SHA-512; a token may name anybody."""


class SecuredKafka(Kafka):
    """One broker with three ways in: plaintext (``bootstrap``; may do everything), SASL_SSL, and mutual TLS."""

    n_ports = 4  # plaintext, controller, SASL_SSL, mutual TLS

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        folder.mkdir(parents=True, exist_ok=True)
        authority = Authority(folder)
        self.ca_file = authority.ca
        certificate, key = authority.issue("broker", names=LOCAL_NAMES)
        self._server_pem = folder / "keystore.pem"
        self._server_pem.write_bytes(key.read_bytes() + certificate.read_bytes())
        self.certificate_file, self.key_file = authority.issue("mesh")

    def address(self, mechanism: SaslMechanism, user: str = "mesh", password: str = PASSWORD) -> KafkaAddress:
        """By SASL_SSL."""
        servers = (HostPort("127.0.0.1", self.ports[2]),)
        if mechanism == "OAUTHBEARER":
            token = self.folder / f"{user}.token"
            token.write_text(unsecured_token(user))
            access = KafkaAccess("SASL_SSL", mechanism, token=token.as_uri(), ca_file=self.ca_file)
        else:
            access = KafkaAccess("SASL_SSL", mechanism, user, password, ca_file=self.ca_file)
        return KafkaAddress(servers, access)

    @property
    def mutual_tls(self) -> KafkaAddress:
        """By a certificate of ours, as ``User:CN=mesh``."""
        access = KafkaAccess(
            "SSL", ca_file=self.ca_file, certificate_file=self.certificate_file, key_file=self.key_file
        )
        return KafkaAddress((HostPort("127.0.0.1", self.ports[3]),), access)

    def _empty(self, runtime: java.Java, libraries: Path) -> Path:
        users = [f"SCRAM-SHA-512=[name={user},password={PASSWORD}]" for user in USERS]
        more = [word for user in users for word in ("--add-scram", user)]
        return formatted(runtime, libraries, f"formatted-with-{len(USERS)}-users", more)

    def _more(self) -> Mapping[str, str]:
        plain, controller, sasl, tls = (f"127.0.0.1:{port}" for port in self.ports)
        login = "org.apache.kafka.common.security"
        users = " ".join(f'user_{user}="{PASSWORD}"' for user in USERS)
        at = "listener.name.sasl_ssl"
        return {
            "listeners": f"PLAINTEXT://{plain},CONTROLLER://{controller},SASL_SSL://{sasl},SSL://{tls}",
            "advertised.listeners": f"PLAINTEXT://{plain},SASL_SSL://{sasl},SSL://{tls}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",  # who comes in by plaintext: the broker itself, and the tests' set-up
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self._server_pem.name,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.ca_file.name,
            "listener.name.ssl.ssl.client.auth": "required",
            "ssl.principal.mapping.rules": "RULE:^CN=([^,]*).*$/$1/,DEFAULT",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512,OAUTHBEARER",
            f"{at}.plain.sasl.jaas.config": f"{login}.plain.PlainLoginModule required {users};",
            f"{at}.scram-sha-512.sasl.jaas.config": f"{login}.scram.ScramLoginModule required;",
            f"{at}.oauthbearer.sasl.jaas.config": f"{login}.oauthbearer.OAuthBearerLoginModule required "
            'unsecuredLoginStringClaim_sub="broker";',
        }


def unsecured_token(user: str, life_s: float = 3600.0) -> str:
    """A token that Kafka's own validator for tests takes: a JWT without a signature."""
    now_s = time.time()

    def part(claims: Mapping[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none'})}.{part({'sub': user, 'iat': now_s - 10, 'exp': now_s + life_s})}."
