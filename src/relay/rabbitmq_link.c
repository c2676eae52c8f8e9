/*
 * rabbitmq_link.c
 *		A socket to RabbitMQ: connecting, reading and writing without blocking.
 *
 * While the relay runs nothing here waits: what the broker does not take stays
 * in a buffer.  Only connecting waits, on the latch and the socket together,
 * no longer than told.
 */
#include "relay/rabbitmq.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker/worker.h"

#define IN_SIZE			(64 * 1024)
#define FRAME_MAX		(128 * 1024)	/* what we ask the broker for */
#define OUT_KEPT		(1024 * 1024)	/* a larger buffer is freed once empty */

static pgsocket connect_socket(const struct addrinfo *address, const char *host, int port,
							   TimestampTz deadline, char *error, size_t error_size);
static bool set_up_socket(pgsocket sock);
static ssize_t write_some(EsRabbitLink *link, const char *data, size_t size);
static ssize_t read_some(EsRabbitLink *link);

/*
 * es_rabbitmq_link_open connects to a host, with TLS if the options say so;
 * NULL and an error if that fails.
 */
EsRabbitLink *
es_rabbitmq_link_open(MemoryContext context, const EsRabbitOptions *options,
					  const char *host, TimestampTz deadline,
					  char *error, size_t error_size)
{
	EsRabbitLink *link;
	struct addrinfo *addresses;
	pgsocket	sock = PGINVALID_SOCKET;
	MemoryContext before;

	addresses = es_rabbitmq_resolve(host, options->port, deadline, error, error_size);
	for (struct addrinfo *a = addresses; a != NULL && sock == PGINVALID_SOCKET; a = a->ai_next)
		sock = connect_socket(a, host, options->port, deadline, error, error_size);
	if (addresses != NULL)
		freeaddrinfo(addresses);
	if (sock == PGINVALID_SOCKET)
		return NULL;

	before = MemoryContextSwitchTo(context);
	link = palloc0(sizeof(EsRabbitLink));
	link->context = context;
	link->socket = sock;
	link->frame_max = FRAME_MAX;
	link->in = palloc(IN_SIZE);
	link->received_at = link->written_at = GetCurrentTimestamp();
	initStringInfo(&link->out);
	MemoryContextSwitchTo(before);

	link->decoder = amqp_new_connection();
	if (link->decoder == NULL)
		es_rabbitmq_link_error(link, "out of memory");
	else if (options->tls)
		(void) es_rabbitmq_tls_start(link, options, host, deadline);

	if (link->error[0] != '\0')
	{
		snprintf(error, error_size, "%s", link->error);
		es_rabbitmq_link_close(link);
		return NULL;
	}
	return link;
}

/*
 * es_rabbitmq_link_close closes the socket; does not wait.
 */
void
es_rabbitmq_link_close(EsRabbitLink *link)
{
	es_rabbitmq_tls_end(link);
	if (link->decoder != NULL)
		(void) amqp_destroy_connection(link->decoder);
	close(link->socket);
	pfree(link->out.data);
	pfree(link->in);
	pfree(link);
}

/*
 * es_rabbitmq_wait sleeps until the socket is ready; false when the deadline
 * has passed (the error is left empty then) or the worker is to leave.
 */
bool
es_rabbitmq_wait(pgsocket sock, int events, TimestampTz deadline,
				 char *error, size_t error_size)
{
	for (;;)
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
		int			ready;

		if (left <= 0)
			return false;
		ready = WaitLatchOrSocket(MyLatch,
								  events | WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
								  sock, left, es_wait_event_new("EventsrcRelayBroker"));
		if (ready & WL_LATCH_SET)
			ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (es_worker_should_leave())
		{
			snprintf(error, error_size, "the worker is to leave");
			return false;
		}
		if (ready & events)
			return true;
	}
}

/*
 * es_rabbitmq_flush writes what the socket takes; false if the link is dead.
 */
bool
es_rabbitmq_flush(EsRabbitLink *link)
{
	StringInfo	out = &link->out;

	while (link->error[0] == '\0' && out->cursor < out->len)
	{
		ssize_t		written = write_some(link, out->data + out->cursor, out->len - out->cursor);

		if (written <= 0)
			break;
		out->cursor += written;
		link->written_at = GetCurrentTimestamp();
	}

	if (out->cursor == out->len)
	{
		if (out->maxlen > OUT_KEPT)
		{
			MemoryContext before = MemoryContextSwitchTo(link->context);

			pfree(out->data);
			initStringInfo(out);
			MemoryContextSwitchTo(before);
		}
		out->cursor = 0;
		resetStringInfo(out);
	}
	else if (out->cursor > out->len / 2)
	{
		memmove(out->data, out->data + out->cursor, out->len - out->cursor);
		out->len -= out->cursor;
		out->cursor = 0;
	}
	return link->error[0] == '\0';
}

/*
 * es_rabbitmq_read_frame returns 1 and the next frame, whose parts live until
 * the next call; 0 if there is none yet; -1 if the link is dead.
 */
int
es_rabbitmq_read_frame(EsRabbitLink *link, amqp_frame_t *frame)
{
	amqp_maybe_release_buffers(link->decoder);
	while (link->error[0] == '\0')
	{
		amqp_bytes_t data;
		int			consumed;

		if (link->in_start == link->in_end)
		{
			ssize_t		got = read_some(link);

			if (got < 0)
				break;
			if (got == 0)
				return 0;
		}
		data.bytes = link->in + link->in_start;
		data.len = link->in_end - link->in_start;
		consumed = amqp_handle_input(link->decoder, data, frame);
		if (consumed < 0)
		{
			es_rabbitmq_link_error(link, "the broker does not speak AMQP 0-9-1: %s",
								   amqp_error_string2(consumed));
			break;
		}
		link->in_start += consumed;
		if (frame->frame_type != 0)
			return 1;
	}
	return -1;
}

/*
 * es_rabbitmq_unwritten counts the bytes that wait to be written.
 */
size_t
es_rabbitmq_unwritten(const EsRabbitLink *link)
{
	return link->out.len - link->out.cursor;
}

/*
 * es_rabbitmq_wants_write tells whether the link goes on when the socket takes
 * more.
 */
bool
es_rabbitmq_wants_write(const EsRabbitLink *link)
{
	return link->ssl_wants_write ||
		(es_rabbitmq_unwritten(link) > 0 && !link->ssl_wants_read);
}

/*
 * es_rabbitmq_link_error writes down why the link is dead; the first reason
 * counts.
 */
void
es_rabbitmq_link_error(EsRabbitLink *link, const char *format,...)
{
	va_list		args;

	if (link->error[0] != '\0')
		return;
	va_start(args, format);
	vsnprintf(link->error, sizeof(link->error), format, args);
	va_end(args);
}

/*
 * connect_socket connects to an address; PGINVALID_SOCKET and an error if that
 * fails.
 */
static pgsocket
connect_socket(const struct addrinfo *address, const char *host, int port,
			   TimestampTz deadline, char *error, size_t error_size)
{
	pgsocket	sock = socket(address->ai_family, SOCK_STREAM, IPPROTO_TCP);
	int			status = 0;
	socklen_t	size = sizeof(status);

	error[0] = '\0';
	if (sock == PGINVALID_SOCKET)
	{
		snprintf(error, error_size, "could not create socket: %m");
		return PGINVALID_SOCKET;
	}
	if (!set_up_socket(sock))
		snprintf(error, error_size, "could not set up socket: %m");
	else if (connect(sock, address->ai_addr, address->ai_addrlen) == 0)
		return sock;
	else if (errno != EINPROGRESS && errno != EINTR)
		snprintf(error, error_size, "could not connect to host \"%s\", port %d: %m", host, port);
	else if (!es_rabbitmq_wait(sock, WL_SOCKET_WRITEABLE, deadline, error, error_size))
	{
		if (error[0] == '\0')
			snprintf(error, error_size, "could not connect to host \"%s\", port %d: no answer in time",
					 host, port);
	}
	else if (getsockopt(sock, SOL_SOCKET, SO_ERROR, &status, &size) == 0 && status == 0)
		return sock;
	else
	{
		errno = status;
		snprintf(error, error_size, "could not connect to host \"%s\", port %d: %m", host, port);
	}
	close(sock);
	return PGINVALID_SOCKET;
}

/*
 * set_up_socket makes a socket non-blocking and sets its options.
 */
static bool
set_up_socket(pgsocket sock)
{
	int			on = 1;

	return fcntl(sock, F_SETFD, FD_CLOEXEC) == 0 &&
		fcntl(sock, F_SETFL, O_NONBLOCK) == 0 &&
		setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0 &&
		setsockopt(sock, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) == 0;
}

/*
 * write_some writes to the socket; 0 if it takes nothing now, -1 if the link is
 * dead.
 */
static ssize_t
write_some(EsRabbitLink *link, const char *data, size_t size)
{
	ssize_t		written;

	if (link->ssl != NULL)
		return es_rabbitmq_tls_write(link, data, size);

	/* a bgworker ignores SIGPIPE */
	do
		written = send(link->socket, data, size, 0);
	while (written < 0 && errno == EINTR);
	if (written >= 0)
		return written;
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return 0;
	es_rabbitmq_link_error(link, "the connection to the broker is lost: %m");
	return -1;
}

/*
 * read_some fills the buffer; 0 if there is nothing now, -1 if the link is
 * dead.
 */
static ssize_t
read_some(EsRabbitLink *link)
{
	ssize_t		got;

	if (link->ssl != NULL)
		got = es_rabbitmq_tls_read(link, link->in, IN_SIZE);
	else
	{
		do
			got = recv(link->socket, link->in, IN_SIZE, 0);
		while (got < 0 && errno == EINTR);
		if (got == 0)
		{
			es_rabbitmq_link_error(link, "the broker closed the connection");
			got = -1;
		}
		else if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			got = 0;
		else if (got < 0)
			es_rabbitmq_link_error(link, "the connection to the broker is lost: %m");
	}
	if (got <= 0)
		return got;

	link->in_start = 0;
	link->in_end = got;
	link->received += got;
	link->received_at = GetCurrentTimestamp();
	return got;
}
