"""Certificates for servers on loopback and for their clients, signed by an authority made for the test.

Owns: no state beyond the files that it is asked to write. Threads: any.
Invariants: nothing here is trusted by any other program.
"""

import ssl

import trustme


class Authority:
    """
    A certificate authority.

    Args:
        folder: Where its certificates and keys go as PEM files.
        name: Told apart from other authorities in the same folder.
    """

    def __init__(self, folder, name="ca"):
        self._ca = trustme.CA()
        self._folder = folder
        self._name = name
        self.certificate_file = str(folder / f"{name}.pem")
        self._ca.cert_pem.write_to_path(self.certificate_file)

    def server_context(self, *names, client_authority=None):
        """Return what a server with these names uses; with an authority for clients, it demands their certificates."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*(names or ("127.0.0.1", "localhost"))).configure_cert(context)
        if client_authority is not None:
            client_authority._ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_files(self):
        """Return (certificate file, key file) of a client."""
        leaf = self._ca.issue_cert("client@surgetank.test")
        certificate = self._folder / f"{self._name}-client.pem"
        key = self._folder / f"{self._name}-client.key"
        leaf.cert_chain_pems[0].write_to_path(certificate)
        leaf.private_key_pem.write_to_path(key)
        return str(certificate), str(key)

    def server_credentials(self, *names, client_authority=None):
        """Return the same for a gRPC server."""
        # Here and not at the top, for tests that get by without gRPC.
        import grpc

        leaf = self._ca.issue_cert(*(names or ("127.0.0.1", "localhost")))
        chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
        demanded = client_authority and client_authority._ca.cert_pem.bytes()
        return grpc.ssl_server_credentials(
            [(leaf.private_key_pem.bytes(), chain)],
            root_certificates=demanded,
            require_client_auth=client_authority is not None,
        )
