/*
 * rabbitmq_tls.c
 *		TLS between a relay and RabbitMQ.
 *
 * The broker's certificate and name are verified unless an option says no.
 */
#include "relay/rabbitmq.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "storage/latch.h"

static bool set_up_context(EsRabbitLink *link, const EsRabbitOptions *options);
static bool set_up_session(EsRabbitLink *link, const EsRabbitOptions *options, const char *host);
static bool is_address(const char *host);
static bool shake_hands(EsRabbitLink *link, TimestampTz deadline);
static int	give_key_password(char *buffer, int size, int writing, void *password);
static void note_tls_error(EsRabbitLink *link, const char *what, int reason, int saved_errno);

/*
 * es_rabbitmq_tls_start begins TLS on a link that is connected; on failure the
 * link has an error.
 */
bool
es_rabbitmq_tls_start(EsRabbitLink *link, const EsRabbitOptions *options,
					  const char *host, TimestampTz deadline)
{
	return set_up_context(link, options) &&
		set_up_session(link, options, host) &&
		shake_hands(link, deadline);
}

/*
 * es_rabbitmq_tls_end frees what belongs to TLS.
 */
void
es_rabbitmq_tls_end(EsRabbitLink *link)
{
	if (link->ssl != NULL)
	{
		/* says goodbye if that is possible at once */
		if (link->error[0] == '\0')
		{
			ERR_clear_error();
			(void) SSL_shutdown(link->ssl);
		}
		SSL_free(link->ssl);
		link->ssl = NULL;
	}
	if (link->ssl_context != NULL)
	{
		SSL_CTX_free(link->ssl_context);
		link->ssl_context = NULL;
	}
}

/*
 * es_rabbitmq_tls_read reads; 0 if there is nothing now, -1 if the link is
 * dead.
 */
ssize_t
es_rabbitmq_tls_read(EsRabbitLink *link, void *data, size_t size)
{
	int			got;
	int			reason;
	int			saved_errno;

	link->ssl_wants_write = false;
	ERR_clear_error();
	errno = 0;
	got = SSL_read(link->ssl, data, (int) Min(size, INT_MAX));
	if (got > 0)
		return got;
	saved_errno = errno;
	reason = SSL_get_error(link->ssl, got);
	if (reason == SSL_ERROR_WANT_READ)
		return 0;
	if (reason == SSL_ERROR_WANT_WRITE)
	{
		link->ssl_wants_write = true;
		return 0;
	}
	if (reason == SSL_ERROR_ZERO_RETURN)
		es_rabbitmq_link_error(link, "the broker closed the connection");
	else
		note_tls_error(link, "the connection to the broker is lost", reason, saved_errno);
	return -1;
}

/*
 * es_rabbitmq_tls_write writes; 0 if nothing can be written now, -1 if the link
 * is dead.
 */
ssize_t
es_rabbitmq_tls_write(EsRabbitLink *link, const void *data, size_t size)
{
	int			written;
	int			reason;
	int			saved_errno;

	link->ssl_wants_read = false;
	ERR_clear_error();
	errno = 0;
	written = SSL_write(link->ssl, data, (int) Min(size, INT_MAX));
	if (written > 0)
		return written;
	saved_errno = errno;
	reason = SSL_get_error(link->ssl, written);
	if (reason == SSL_ERROR_WANT_WRITE)
		return 0;
	if (reason == SSL_ERROR_WANT_READ)
	{
		link->ssl_wants_read = true;
		return 0;
	}
	note_tls_error(link, "the connection to the broker is lost", reason, saved_errno);
	return -1;
}

/*
 * set_up_context loads the certificates that the options name.
 */
static bool
set_up_context(EsRabbitLink *link, const EsRabbitOptions *options)
{
	SSL_CTX    *context;

	ERR_clear_error();
	link->ssl_context = context = SSL_CTX_new(TLS_client_method());
	if (context == NULL)
	{
		note_tls_error(link, "could not set up TLS", SSL_ERROR_SSL, 0);
		return false;
	}
	(void) SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);

	/* what is not yet written may move and grow in its buffer */
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);

	/* never asks at a terminal */
	SSL_CTX_set_default_passwd_cb(context, give_key_password);
	SSL_CTX_set_default_passwd_cb_userdata(context, unconstify(char *, options->tls_key_password));

	SSL_CTX_set_verify(context, options->tls_verify_peer ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
	if (options->tls_ca == NULL)
		(void) SSL_CTX_set_default_verify_paths(context);
	else if (SSL_CTX_load_verify_locations(context, options->tls_ca, NULL) != 1)
	{
		note_tls_error(link, "could not load the certificates of option \"tls_ca\"", SSL_ERROR_SSL, 0);
		return false;
	}
	if (options->tls_cert != NULL &&
		SSL_CTX_use_certificate_chain_file(context, options->tls_cert) != 1)
	{
		note_tls_error(link, "could not load the certificate of option \"tls_cert\"", SSL_ERROR_SSL, 0);
		return false;
	}
	if (options->tls_key != NULL &&
		(SSL_CTX_use_PrivateKey_file(context, options->tls_key, SSL_FILETYPE_PEM) != 1 ||
		 SSL_CTX_check_private_key(context) != 1))
	{
		note_tls_error(link, "could not load the key of option \"tls_key\"", SSL_ERROR_SSL, 0);
		return false;
	}
	return true;
}

/*
 * set_up_session makes the session and says which name the broker must have.
 */
static bool
set_up_session(EsRabbitLink *link, const EsRabbitOptions *options, const char *host)
{
	bool		ok = true;

	link->ssl = SSL_new(link->ssl_context);
	if (link->ssl == NULL || SSL_set_fd(link->ssl, link->socket) != 1)
		ok = false;
	if (ok && options->tls_verify_hostname)
		ok = is_address(host) ?
			X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(link->ssl), host) == 1 :
			SSL_set1_host(link->ssl, host) == 1;
	if (ok && !is_address(host))
		ok = SSL_set_tlsext_host_name(link->ssl, host) == 1;
	if (!ok)
		note_tls_error(link, "could not set up TLS", SSL_ERROR_SSL, 0);
	return ok;
}

/*
 * is_address tells whether a host is given by number.
 */
static bool
is_address(const char *host)
{
	unsigned char buffer[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, host, buffer) == 1 || inet_pton(AF_INET6, host, buffer) == 1;
}

/*
 * shake_hands performs the handshake.
 */
static bool
shake_hands(EsRabbitLink *link, TimestampTz deadline)
{
	for (;;)
	{
		int			result;
		int			reason;
		int			saved_errno;
		int			events;
		char		error[ES_BROKER_TEXT] = "";

		ERR_clear_error();
		errno = 0;
		result = SSL_connect(link->ssl);
		if (result == 1)
			return true;
		saved_errno = errno;
		reason = SSL_get_error(link->ssl, result);
		if (reason == SSL_ERROR_WANT_READ)
			events = WL_SOCKET_READABLE;
		else if (reason == SSL_ERROR_WANT_WRITE)
			events = WL_SOCKET_WRITEABLE;
		else
		{
			long		verified = SSL_get_verify_result(link->ssl);

			if (verified != X509_V_OK)
				es_rabbitmq_link_error(link, "the broker's certificate is not accepted: %s",
									   X509_verify_cert_error_string(verified));
			else
				note_tls_error(link, "the TLS handshake failed", reason, saved_errno);
			return false;
		}
		if (!es_rabbitmq_wait(link->socket, events, deadline, error, sizeof(error)))
		{
			es_rabbitmq_link_error(link, "%s", error[0] != '\0' ? error :
								   "the TLS handshake failed: no answer in time");
			return false;
		}
	}
}

/*
 * give_key_password hands the password of the private key to OpenSSL.
 */
static int
give_key_password(char *buffer, int size, int writing, void *password)
{
	if (password == NULL || strlen(password) >= (size_t) size)
		return 0;
	strcpy(buffer, password);
	return strlen(password);
}

/*
 * note_tls_error writes down what OpenSSL says about a failure.
 */
static void
note_tls_error(EsRabbitLink *link, const char *what, int reason, int saved_errno)
{
	unsigned long code = ERR_peek_last_error();
	const char *explained = code != 0 ? ERR_reason_error_string(code) : NULL;

	ERR_clear_error();
	if (explained == NULL && reason == SSL_ERROR_SYSCALL)
		explained = saved_errno != 0 ? strerror(saved_errno) : "the broker closed the connection";
	es_rabbitmq_link_error(link, "%s: %s", what, explained != NULL ? explained : "unknown TLS error");
}
