/*
 * rabbitmq.h
 *		What the parts of the broker type "rabbitmq" share.
 */
#ifndef EVENTSRC_RABBITMQ_H
#define EVENTSRC_RABBITMQ_H

#include "eventsrc.h"

/* where librabbitmq's headers lie; the old place gives a warning since 0.12 */
#if defined(__has_include)
#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/framing.h>
#else
#include <amqp.h>
#include <amqp_framing.h>
#endif
#else
#include <amqp.h>
#include <amqp_framing.h>
#endif

#include <netdb.h>
#include <openssl/ssl.h>

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "relay/broker.h"

/* of AMQP's short strings: names of exchanges, queues, routing keys */
#define ES_RABBITMQ_NAME	255

/* the options of a server and user mapping; strings are palloc'd */
typedef struct EsRabbitOptions
{
	List	   *hosts;			/* char * */
	int			port;
	const char *vhost;
	const char *user;
	const char *password;
	const char *exchange;		/* "" is RabbitMQ's default exchange */
	const char *exchange_type;
	bool		declare_exchange;
	List	   *queues;			/* EsRabbitQueue * */
	const char *queue_type;
	int			window;			/* events */
	int			heartbeat;		/* seconds */
	int			connect_timeout;	/* seconds */
	bool		fence;
	bool		tls;
	bool		tls_verify_peer;
	bool		tls_verify_hostname;
	const char *tls_ca;			/* NULL: those that the system trusts */
	const char *tls_cert;
	const char *tls_key;
	const char *tls_key_password;
} EsRabbitOptions;

/* a queue to be declared and bound */
typedef struct EsRabbitQueue
{
	const char *name;
	const char *binding_key;
} EsRabbitQueue;

/*
 * A socket that carries AMQP frames, with or without TLS.  librabbitmq encodes
 * and decodes the frames; its own sockets are not used, as a write may block
 * in them without end.
 */
typedef struct EsRabbitLink
{
	MemoryContext context;
	pgsocket	socket;
	SSL_CTX    *ssl_context;
	SSL		   *ssl;			/* NULL: no TLS */
	bool		ssl_wants_read; /* a write waits for something to read */
	bool		ssl_wants_write;	/* a read waits for room to write */
	amqp_connection_state_t decoder;
	uint32		frame_max;
	int			channel_max;
	StringInfoData out;			/* what is not yet written, from cursor on */
	char	   *in;				/* what is not yet decoded */
	size_t		in_start;
	size_t		in_end;
	uint64		received;		/* bytes, ever */
	TimestampTz received_at;
	TimestampTz written_at;
	char		error[ES_BROKER_TEXT];	/* not empty: the link is dead */
} EsRabbitLink;

#define ES_RABBITMQ_MARK	80	/* of the name of a mark */

/* whether a server of a later timeline has taken over */
typedef struct EsRabbitFence
{
	EsRabbitLink *link;
	char		mark[ES_RABBITMQ_MARK]; /* the queue that says so if it exists */
	bool		off;			/* not wanted, or the broker does not allow it */
	bool		asking;
	bool		returned;		/* the question came back */
	bool		answered;		/* at least once */
	bool		over;
	TimestampTz asked_at;
} EsRabbitFence;

/* rabbitmq_options.c */
extern void es_rabbitmq_check_option(const char *name, const char *value, bool on_server);
extern void es_rabbitmq_check_server(List *options);
extern EsRabbitOptions *es_rabbitmq_options(List *options);

/* rabbitmq_names.c */
extern void es_rabbitmq_check_topic(const char *template);
extern void es_rabbitmq_topic_value(StringInfo buffer, const char *value, int length);
extern void es_rabbitmq_topic_end(StringInfo buffer, int begin);
extern void es_rabbitmq_split(const char *topic, const char *exchange,
							  amqp_bytes_t *to_exchange, amqp_bytes_t *routing_key);

/* rabbitmq_resolve.c */
extern struct addrinfo *es_rabbitmq_resolve(const char *host, int port, TimestampTz deadline,
											char *error, size_t error_size);

/* rabbitmq_link.c: connecting, reading, writing */
extern EsRabbitLink *es_rabbitmq_link_open(MemoryContext context, const EsRabbitOptions *options,
										   const char *host, TimestampTz deadline,
										   char *error, size_t error_size);
extern void es_rabbitmq_link_close(EsRabbitLink *link);
extern bool es_rabbitmq_wait(pgsocket socket, int events, TimestampTz deadline,
							 char *error, size_t error_size);
extern bool es_rabbitmq_flush(EsRabbitLink *link);
extern int	es_rabbitmq_read_frame(EsRabbitLink *link, amqp_frame_t *frame);
extern size_t es_rabbitmq_unwritten(const EsRabbitLink *link);
extern bool es_rabbitmq_wants_write(const EsRabbitLink *link);
extern void es_rabbitmq_link_error(EsRabbitLink *link, const char *format,...) pg_attribute_printf(2, 3);

/* rabbitmq_tls.c */
extern bool es_rabbitmq_tls_start(EsRabbitLink *link, const EsRabbitOptions *options,
								  const char *host, TimestampTz deadline);
extern void es_rabbitmq_tls_end(EsRabbitLink *link);
extern ssize_t es_rabbitmq_tls_read(EsRabbitLink *link, void *data, size_t size);
extern ssize_t es_rabbitmq_tls_write(EsRabbitLink *link, const void *data, size_t size);

/* rabbitmq_frames.c: what is written */
extern void es_rabbitmq_put_header(EsRabbitLink *link);
extern bool es_rabbitmq_put_method(EsRabbitLink *link, int channel, amqp_method_number_t method,
								   void *decoded);
extern bool es_rabbitmq_put_message(EsRabbitLink *link, int channel, amqp_bytes_t exchange,
									amqp_bytes_t routing_key, const EsMessage *message);
extern void es_rabbitmq_put_heartbeat(EsRabbitLink *link);
extern int64 es_rabbitmq_position(const amqp_basic_properties_t *properties);

/* rabbitmq_login.c */
extern EsRabbitLink *es_rabbitmq_connect(MemoryContext context, const EsRabbitOptions *options,
										 const char *host, int *heartbeat,
										 char *error, size_t error_size);
extern bool es_rabbitmq_declare_exchange(EsRabbitLink *link, const EsRabbitOptions *options,
										 amqp_bytes_t exchange, TimestampTz deadline);
extern void es_rabbitmq_closed_error(EsRabbitLink *link, const amqp_frame_t *frame);

/* rabbitmq_fence.c */
extern void es_rabbitmq_fence_start(EsRabbitFence *fence, EsRabbitLink *link,
									const EsRabbitOptions *options, const EsSender *sender);
extern bool es_rabbitmq_fence_poll(EsRabbitFence *fence, TimestampTz now, bool blocked);
extern bool es_rabbitmq_fence_passed(const EsRabbitFence *fence);
extern void es_rabbitmq_fence_take(EsRabbitFence *fence, const amqp_frame_t *frame);

#define ES_RABBITMQ_CHANNEL			1
#define ES_RABBITMQ_FENCE_CHANNEL	2

#endif							/* EVENTSRC_RABBITMQ_H */
