/*
 * relay.h
 *		Relays: what the catalog says of them, what their workers report.
 */
#ifndef EVENTSRC_RELAY_H
#define EVENTSRC_RELAY_H

#include "eventsrc.h"

#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "relay/broker.h"

/* a row of eventsrc.relays */
typedef struct EsRelay
{
	int64		id;
	NameData	name;
	NameData	store;
	NameData	server;
	char	   *topic;			/* template */
	Oid			owner;
	int64		position;		/* everything up to here was delivered */
	int64		epoch;			/* raised when position is set from outside; a
								 * broker's record of a lower one is void */
	char	   *delivery;		/* exactly_once or at_least_once */
	bool		paused;
	bool		local;			/* made or resumed in this very database */
} EsRelay;

typedef enum EsRelayState
{
	ES_RELAY_WAITING,			/* no worker yet */
	ES_RELAY_RUNNING,
	ES_RELAY_RETRYING,			/* something failed, goes on by itself */
	ES_RELAY_STOPPED			/* something must be put right by people; a
								 * nudge or a change of its row tries again */
} EsRelayState;

#define ES_RELAY_ERROR	512

/* what a relay's worker reports, in shared memory */
typedef struct EsRelayStatus
{
	Oid			dboid;			/* InvalidOid: the slot is free */
	int64		relay;
	pid_t		pid;			/* 0: no worker */
	EsRelayState state;
	bool		nudged;			/* somebody wants a new attempt now */
	int64		position;
	int64		sent;			/* since the worker started */
	int64		retries;		/* how often something failed and was tried
								 * again */
	TimestampTz last_error_at;
	char		last_error[ES_RELAY_ERROR];
	char		address[ES_BROKER_TEXT];
} EsRelayStatus;

/* catalog.c: the table eventsrc.relays; all need a transaction */
extern List *es_relay_list(MemoryContext context);
extern EsRelay *es_relay_load(int64 id, MemoryContext context);
extern EsRelay *es_relay_find(const char *name);
extern bool es_relay_insert(const char *name, const char *server, const char *topic,
							int64 position, const char *store);
extern void es_relay_delete(int64 id);
extern void es_relay_pause(int64 id);
extern void es_relay_resume(int64 id);
extern bool es_relay_save_position(int64 id, int64 epoch, int64 position);
extern char *es_relay_problem(EsRelay *relay);
extern char *es_relay_store_problem(EsRelay *relay);
extern const EsBrokerType *es_relay_options(EsRelay *relay, List **options);
extern bool es_relay_runnable(EsRelay *relay);

/* status.c: the shared memory slots */
extern void es_relay_request_shmem(void);	/* shmem_request_hook */
extern void es_relay_init_shmem(void);	/* shmem_startup_hook */
extern bool es_relay_status_attach(int64 relay, int64 position);
extern void es_relay_status_detach(void);
extern void es_relay_status_state(EsRelayState state);
extern void es_relay_status_progress(int64 position, int64 sent);
extern void es_relay_status_error(EsRelayState state, const char *error);
extern bool es_relay_status_claim(int64 relay);
extern void es_relay_status_problem(int64 relay, const char *error);
extern void es_relay_status_address(const char *address);
extern bool es_relay_status_nudged(void);
extern void es_relay_status_nudge(int64 relay);
extern bool es_relay_status_read(int64 relay, EsRelayStatus *status);
extern List *es_relay_status_ids(void);
extern void es_relay_status_release(int64 relay);

/* supervise.c */
extern void es_relay_init(void);	/* called by _PG_init */

/* options.c: foreign servers and user mappings */
extern const EsBrokerType *es_server_type(List *options);
extern char *es_closest_name(const char *name, List *names);

/* template.c */
extern void es_kafka_check_topic(const char *template);
extern void es_kafka_topic(StringInfo buffer, const char *template, const char *store,
						   const char *aggregate_type, const char *event_type);

/* kafka_options.c */
extern void es_kafka_check_option(const char *name, const char *value, bool on_server);
extern void es_kafka_check_server(List *options);

/* rabbitmq_options.c */
extern bool es_rabbitmq_claims_option(const char *name);

/* envelope.c */
extern void es_envelope(TupleTableSlot *slot, const EsRelay *relay,
						const EsBrokerType *type, EsMessage *message);

#endif							/* EVENTSRC_RELAY_H */
