/*
 * compat.h
 *		Every difference between the PostgreSQL versions that eventsrc builds
 *		on (15, 17, 18), in one place; no other file asks PG_VERSION_NUM.
 */
#ifndef EVENTSRC_COMPAT_H
#define EVENTSRC_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 150000
#error "eventsrc needs PostgreSQL 15 or later"
#endif

/* relay: privileges on objects, one function a catalog until 15 */
#if PG_VERSION_NUM < 160000
#define es_foreign_server_aclcheck(oid, role, mode) pg_foreign_server_aclcheck(oid, role, mode)
#define es_namespace_aclcheck(oid, role, mode) pg_namespace_aclcheck(oid, role, mode)
#else
#define es_foreign_server_aclcheck(oid, role, mode) \
	object_aclcheck(ForeignServerRelationId, oid, role, mode)
#define es_namespace_aclcheck(oid, role, mode) \
	object_aclcheck(NamespaceRelationId, oid, role, mode)
#endif

#endif							/* EVENTSRC_COMPAT_H */
