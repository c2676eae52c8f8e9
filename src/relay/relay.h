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
#include "fmgr.h"
#include "relay/broker.h"
#include "utils/jsonb.h"

#define ES_MAX_LANES	16

/* a lane of a relay: its row of eventsrc.relays, and where the lane stands */
typedef struct EsRelay
{
	int64		id;
	int			lane;			/* from 0 on */
	int			lanes;			/* that there are now */
	int64		halted_at;		/* where this lane waits for the change of
								 * their number, -1: it does not */
	int64		turn_position;	/* up to where all go before that, -1: it is
								 * not agreed yet */
	const char *label;			/* name and lane, for the log */
	NameData	name;
	NameData	store;
	NameData	server;
	char	   *topic;			/* template */
	Oid			owner;
	int64		position;		/* everything up to here was delivered */
	int64		epoch;			/* raised when position is set from outside; a
								 * broker's record of a lower one is void */
	const char *delivery;		/* exactly_once or at_least_once */
	bool		paused;
	bool		local;			/* made or resumed in this very database */
	int64		to_position;	/* the relay ends there; 0: never */
	int64		retry_of;		/* the relay whose dead letter it sends, or 0 */
	Jsonb	   *options;
	struct EsContent *content;	/* what the options say */
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
	int64		relay;			/* es_lane_key() */
	pid_t		pid;			/* 0: no worker */
	EsRelayState state;
	bool		nudged;			/* somebody wants a new attempt now */
	bool		told;			/* somebody is changing its row */
	int64		position;
	int64		sent;			/* since the worker started */
	double		rate;			/* events a second up to rate_at */
	TimestampTz rate_at;
	int64		rate_sent;
	int64		retries;		/* how often something failed and was tried
								 * again */
	TimestampTz last_error_at;
	char		last_error[ES_RELAY_ERROR];
	char		address[ES_BROKER_TEXT];
} EsRelayStatus;

/* catalog.c: the table eventsrc.relays; all need a transaction */
extern List *es_relay_list(MemoryContext context);
extern EsRelay *es_relay_load(int64 id, int lane, MemoryContext context);
extern void es_relay_lock(int64 id);
extern EsRelay *es_relay_find(const char *name);
extern bool es_relay_insert(const EsRelay *relay);
extern void es_relay_alter(const EsRelay *relay);
extern void es_relay_seek(int64 id, int64 position);
extern void es_relay_finish(const EsRelay *relay);
extern void es_relay_delete(int64 id);
extern void es_relay_pause(int64 id);
extern void es_relay_resume(int64 id);
extern bool es_relay_save_position(int64 id, int lane, int64 epoch, int64 position);
extern void es_relay_tell_workers(void);
extern char *es_relay_problem(EsRelay *relay);
extern char *es_relay_store_problem(EsRelay *relay);
extern const EsBrokerType *es_relay_options(EsRelay *relay, List **options);
extern bool es_relay_runnable(EsRelay *relay);
extern bool es_relay_finished(const EsRelay *relay);
extern uint64 es_relay_execute(const char *query, int nargs, Oid *types, Datum *values,
							   bool read_only);

/*
 * lane.c: es_lane_key is the number by which a lane's worker and status are
 * known; the first lane's is the relay's.
 */
extern int64 es_lane_key(int64 relay, int lane);
extern int64 es_lane_relay(int64 key);
extern int	es_lane_number(int64 key);
extern bool es_lane_takes(const EsRelay *relay, TupleTableSlot *slot);
extern bool es_lanes_change(const EsRelay *relay);
extern void es_lanes_set_off(int64 relay);
extern void es_lanes_tell(int64 relay);
extern void es_lanes_nudge(int64 relay);

/* standby.c */
extern char *es_standby_problem(const struct EsContent *content);

/* status.c: the shared memory slots, by es_lane_key() */
extern void es_relay_request_shmem(void);	/* shmem_request_hook */
extern void es_relay_init_shmem(void);	/* shmem_startup_hook */
extern bool es_relay_status_attach(int64 relay, int64 position);
extern void es_relay_status_detach(void);
extern void es_relay_status_state(EsRelayState state);
extern void es_relay_status_progress(int64 position, int64 sent);
extern double es_relay_status_rate(const EsRelayStatus *status);
extern void es_relay_status_error(EsRelayState state, const char *error);
extern bool es_relay_status_claim(int64 relay);
extern void es_relay_status_problem(int64 relay, const char *error);
extern void es_relay_status_address(const char *address);
extern bool es_relay_status_nudged(void);
extern void es_relay_status_nudge(int64 relay);
extern void es_relay_status_tell(int64 relay);
extern void es_relay_status_told(int64 relay);
extern bool es_relay_status_read(int64 relay, EsRelayStatus *status);
extern List *es_relay_status_ids(void);
extern void es_relay_status_release(int64 relay);

/* relay.c: what log lines of this process begin with */
extern const char *es_relay_title(void);

/* supervise.c */
extern void es_relay_init(void);	/* called by _PG_init */

/* options.c: foreign servers and user mappings */
extern const EsBrokerType *es_server_type(List *options);
extern char *es_closest_name(const char *name, List *names);

/* functions.c */
extern char *es_relay_name_argument(FunctionCallInfo fcinfo, int argno, const char *what);
extern char *es_relay_topic_argument(FunctionCallInfo fcinfo, int argno);
extern const EsBrokerType *es_relay_check_server(const char *name);
extern int64 es_relay_check_position(int64 position, const char *what);
extern EsRelay *es_relay_own(FunctionCallInfo fcinfo, const char *function);
extern const char *es_relay_delivery(const struct EsContent *content, const EsBrokerType *type);
extern void es_relay_add(const EsRelay *relay);

/* dead_letter.c */
extern void es_relay_dead_letter(const EsRelay *relay, int64 position, const char *reason);
extern bool es_dead_letter_delete(int64 relay, int64 position);

/* template.c */
extern void es_kafka_check_topic(const char *template);
extern void es_kafka_topic_value(StringInfo buffer, const char *value, int length);
extern void es_kafka_topic_end(StringInfo buffer, int begin);

/* kafka_options.c */
extern void es_kafka_check_option(const char *name, const char *value, bool on_server);
extern void es_kafka_check_server(List *options);

/* rabbitmq_options.c */
extern bool es_rabbitmq_claims_option(const char *name);

#endif							/* EVENTSRC_RELAY_H */
