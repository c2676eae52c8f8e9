/*
 * broker.h
 *		What a relay needs of a message broker, and nothing else of it.
 *
 * A broker type is a table of functions.  All of them run in the relay's own
 * process and thread; none may hold a transaction, none may raise an error
 * for what the broker does: they write it into the EsBroker.
 */
#ifndef EVENTSRC_BROKER_H
#define EVENTSRC_BROKER_H

#include "eventsrc.h"

#include "nodes/pg_list.h"
#include "relay/window.h"

#define ES_BROKER_TEXT		512
#define ES_MAX_HEADERS		32

typedef struct EsHeader
{
	const char *name;
	const char *value;
	size_t		length;
} EsHeader;

/* one event as it goes out; what it points to is the caller's */
typedef struct EsMessage
{
	int64		position;
	const char *event_id;		/* in UTF-8, as all that goes out */
	size_t		event_id_length;
	const char *topic;
	const char *key;
	size_t		key_length;
	const char *value;
	size_t		value_length;
	int64		timestamp_ms;	/* since 1970 */
	int			nheaders;
	EsHeader	headers[ES_MAX_HEADERS];
} EsMessage;

typedef enum EsSendResult
{
	ES_SEND_OK,					/* in the window now */
	ES_SEND_FULL,				/* not taken: poll, then send it again */
	ES_SEND_FAILED				/* not taken, broker->failed is set */
} EsSendResult;

typedef struct EsBrokerType EsBrokerType;

/* who sends: what a broker that keeps track of its senders knows us by */
typedef struct EsSender
{
	uint64		system_identifier;
	Oid			database;
	int64		relay;
	int			lane;			/* of the relay, from 0 on */
	const char *relay_name;
	uint32		timeline;
	int64		epoch;			/* of the relay's row, raised by a seek */
	int64		position;		/* of the relay's row */
	bool		exactly_once;	/* else at least once */
	bool		ends;			/* by itself, at a position */
} EsSender;

#define ES_PROGRESS_ID		200

/* how far a relay has come, as the broker keeps it */
typedef struct EsProgress
{
	int64		position;		/* everything up to here was delivered */
	int64		epoch;			/* of the relay's row at that time */
	int64		event_position; /* the last event's, 0 if there was none */
	char		event_id[ES_PROGRESS_ID + 1];	/* and its id, perhaps cut */
} EsProgress;

typedef enum EsProgressState
{
	ES_PROGRESS_UNKNOWN,		/* not yet: poll, then ask again */
	ES_PROGRESS_NONE,			/* the broker knows nothing of this relay */
	ES_PROGRESS_FOUND
} EsProgressState;

/* one connection to a broker; a broker type's own struct begins with it */
typedef struct EsBroker
{
	const EsBrokerType *type;
	EsWindow   *window;			/* what was sent and is not confirmed */
	pgsocket	wake;			/* readable when poll() has something to do */
	bool		wake_on_write;	/* the same when it takes more to write */
	int			wake_ms;		/* poll at least so often; 0: no need */
	bool		busy;			/* send() takes nothing until poll() clears
								 * this */
	bool		troubled;		/* out of reach or refusing; mends by itself */
	bool		failed;			/* to be closed; what is unconfirmed must be
								 * sent again */
	bool		rewound;		/* all that was unconfirmed is undone and is
								 * to be sent again over this connection */
	bool		fenced;			/* somebody else sends in our place: the relay
								 * must not go on by itself */
	const char *fenced_hint;	/* what to do then; NULL: seek */
	int64		refused;		/* no event beyond this position was refused */
	int64		rejected;		/* the event at this position is refused for
								 * good, no new attempt mends it; 0: none */
	char		reject_reason[ES_BROKER_TEXT];
	uint64		errors;			/* how often error was written */
	char		error[ES_BROKER_TEXT];	/* the last error */
	char		address[ES_BROKER_TEXT];	/* where other programs find the
											 * broker */
} EsBroker;

struct EsBrokerType
{
	const char *name;			/* the server's option "type" */
	bool		exactly_once;	/* it can deliver so */

	/*
	 * check_option raises an error unless the option may stand on the server
	 * (or on the user mapping); called in backends, must not connect.
	 */
	void		(*check_option) (const char *name, const char *value, bool on_server);

	/*
	 * check_options raises an error if the server's options do not go
	 * together.
	 */
	void		(*check_server) (List *options);

	/* check_topic raises an error if the template cannot give a topic. */
	void		(*check_topic) (const char *template);

	/*
	 * topic_value appends an event's value (UTF-8) to a topic's name, as far
	 * as it can stand there; topic_end makes what stands in the buffer from
	 * begin on a legal name.
	 */
	void		(*topic_value) (StringInfo buffer, const char *value, int length);
	void		(*topic_end) (StringInfo buffer, int begin);

	/* open returns a broker that connects by itself, or NULL and an error. */
	EsBroker   *(*open) (List *options, const EsSender *sender, EsWindow *window,
						 char *error, size_t error_size);

	/*
	 * last_position tells how far the relay has come according to the broker;
	 * nothing is sent before it does.  NULL if the broker keeps no progress
	 * (and so delivers at least once).
	 */
	EsProgressState (*last_position) (EsBroker *broker, EsProgress *progress);
	EsSendResult (*send) (EsBroker *broker, const EsMessage *message);

	/*
	 * end_batch tells that a page was handed over and that everything up to
	 * the position was looked at; may be NULL.
	 */
	void		(*end_batch) (EsBroker *broker, int64 position);

	/* poll takes in what the broker has to say; does not wait. */
	void		(*poll) (EsBroker *broker);

	/*
	 * flush ends a batch and waits, no longer than told, for the
	 * confirmations.
	 */
	void		(*flush) (EsBroker *broker, int timeout_ms);

	/* probe clears broker->troubled if the broker answers within the time. */
	void		(*probe) (EsBroker *broker, int timeout_ms);

	/* close gives up what is unconfirmed; takes bounded time. */
	void		(*close) (EsBroker *broker);
};

extern void es_broker_error(EsBroker *broker, const char *format,...) pg_attribute_printf(2, 3);
extern void es_broker_reject(EsBroker *broker, int64 position, const char *format,...) pg_attribute_printf(3, 4);

extern const EsBrokerType es_kafka_broker;
extern const EsBrokerType es_rabbitmq_broker;

#endif							/* EVENTSRC_BROKER_H */
